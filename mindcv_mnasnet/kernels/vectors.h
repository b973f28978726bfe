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

// T is Vec or float; as a template's argument Vec loses its alignment of 4, so that no pointer is made of T.
template <class T>
inline T get(const float* p) {
  if constexpr (sizeof(T) == sizeof(float))
    return *p;
  else
    return load(p);
}
inline void put(float* p, Vec v) { store(p, v); }
inline void put(float* p, float v) { *p = v; }

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
// Compilers vectorize no loop by themselves that may work in place.
template <class Body>
inline void sweep(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Vec{});
  for (; i < n; ++i) body(i, 0.f);
}

// A sum of pairs over a sweep; two of them in turn hide the latency of an addition.
struct PairSum {
  Vec first = {}, second = {};
  double rest_first = 0, rest_second = 0;

  void add(Vec a, Vec b) {
    first += a;
    second += b;
  }
  void add(float a, float b) {
    rest_first += a;
    rest_second += b;
  }
};

// The sums of what ``body(i, Vec{}, add)`` and ``body(i, 0.f, add)`` add.
struct Pair {
  double first, second;
};
template <class Body>
inline Pair sweep_sums(int64_t n, const Body& body) {
  PairSum even, odd;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    body(i, Vec{}, even);
    body(i + kLanes, Vec{}, odd);
  }
  if (i + kLanes <= n) {
    body(i, Vec{}, even);
    i += kLanes;
  }
  for (; i < n; ++i) body(i, 0.f, even);
  return {sum_lanes(even.first + odd.first) + even.rest_first, sum_lanes(even.second + odd.second) + even.rest_second};
}

}  // namespace
