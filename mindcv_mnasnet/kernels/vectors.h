// Vectors of as many floats as a register holds, and loops over them.
#pragma once

#include <cmath>
#include <cstdint>

namespace {

// Wider vectors than a register are lowered by way of the stack.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(float))));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

template <class T>  // Vec or float
inline T get(const float* p) {
  return *reinterpret_cast<const T*>(p);
}
template <class T>
inline void put(float* p, T v) {
  *reinterpret_cast<T*>(p) = v;
}

inline Vec truncate(Vec v) { return __builtin_convertvector(__builtin_convertvector(v, Integers), Vec); }
inline float truncate(float v) { return static_cast<float>(static_cast<int32_t>(v)); }

// 1 in the first lanes and 0 in the others.
inline Vec first_lanes(int64_t count) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = i < count ? 1.f : 0.f;
  return v;
}
// What is not kept may be anything, so that a factor would not do.
inline Vec keep_lanes(Vec v, Vec keep) { return keep > 0 ? v : Vec{}; }

inline float sum_lanes(Vec v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

// Calls ``body(i, Vec{})`` for whole vectors of n floats, and then ``body(i, 0.f)`` for the floats that are left.
// Written by hand, because compilers vectorize no loop that may work in place.
template <class Body>
inline void sweep(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Vec{});
  for (; i < n; ++i) body(i, 0.f);
}

// A sum over a sweep: several of them hide the latency of an addition.
class Sum {
 public:
  void add(Vec v) { vector_ += v; }
  void add(float v) { rest_ += v; }
  double total() const { return static_cast<double>(sum_lanes(vector_)) + rest_; }

 private:
  Vec vector_ = {};
  double rest_ = 0;
};

}  // namespace
