// A standing team of threads that share out the channels of an operator.
//
// Threads are started by the first operator that wants them and sleep between operators. One operator has the team at
// a time: another one that runs meanwhile does its work alone. A forked child starts a team of its own.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace {

int g_threads = 1;

class Team {
 public:
  explicit Team(int helpers) : helpers_(helpers) {
    try {
      for (int i = 0; i < helpers; ++i) threads_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {  // no more threads can be started: those that run do the work
    }
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    woken_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  int helpers() const { return helpers_; }

  // Calls ``work`` here and, as they wake up, in up to ``helpers`` other threads; returns when all calls have returned.
  template <class Work>
  void run(int helpers, Work& work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      call_ = [](void* p) { (*static_cast<Work*>(p))(); };
      work_ = &work;
      places_ = helpers;
    }
    helpers == 1 ? woken_.notify_one() : woken_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    places_ = 0;  // who has not come by now is not needed
    left_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      woken_.wait(lock, [this] { return ending_ || places_ > 0; });
      if (ending_) return;
      --places_;
      ++working_;
      lock.unlock();
      call_(work_);
      lock.lock();
      if (--working_ == 0) left_.notify_one();
    }
  }

  const int helpers_;
  std::mutex mutex_;
  std::condition_variable woken_, left_;
  void (*call_)(void*) = nullptr;
  void* work_ = nullptr;
  int places_ = 0, working_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// The process's one team, which whoever sets ``taken`` may use, and no one any more once the library is unloaded.
struct TheTeam {
  std::atomic<bool> taken{false};
  Team* team = nullptr;

  TheTeam();

  ~TheTeam() {
    while (taken.exchange(true)) std::this_thread::yield();
    delete team;
  }
};

inline TheTeam& the_team() {
  static TheTeam one;
  return one;
}

inline TheTeam::TheTeam() {
  // The threads stay with the parent, and so does what they hold.
  pthread_atfork(nullptr, nullptr, [] {
    the_team().team = nullptr;
    the_team().taken = false;
  });
}

// Calls ``work()`` in up to ``threads`` threads at once, this one among them.
template <class Work>
void in_threads(int threads, Work work) {
  TheTeam& one = the_team();
  if (threads <= 1 || one.taken.exchange(true)) return work();
  if (one.team == nullptr || one.team->helpers() < threads - 1) {
    delete one.team;
    one.team = new Team(threads - 1);
  }
  one.team->run(threads - 1, work);
  one.taken = false;
}

// Calls ``work(channel, scratch)`` for every channel, in no fixed order; every thread makes itself a scratch memory
// with ``make_scratch()``. Each channel is one thread's alone, so that results do not depend on how many there are.
template <class MakeScratch, class Work>
void for_channels(int64_t channels, const MakeScratch& make_scratch, const Work& work) {
  std::atomic<int64_t> next{0};
  in_threads(static_cast<int>(std::min<int64_t>(g_threads, channels)), [&] {
    auto scratch = make_scratch();
    for (int64_t c; (c = next.fetch_add(1)) < channels;) work(c, scratch);
  });
}

// The same without scratch memory.
template <class Work>
void for_channels(int64_t channels, const Work& work) {
  for_channels(channels, [] { return 0; }, [&](int64_t c, int&) { work(c); });
}

}  // namespace
