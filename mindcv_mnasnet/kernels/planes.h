// float32 NCHW tensors taken plane by plane.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace {

struct Shape {
  int64_t batch, channels, height, width;
  int64_t plane() const { return height * width; }
  int64_t size() const { return batch * channels * plane(); }
  int64_t offset(int64_t n, int64_t c) const { return (n * channels + c) * plane(); }
};

inline Shape shape_of(const int64_t* s) { return {s[0], s[1], s[2], s[3]}; }

// Planes of one channel lie far apart, where no processor looks by itself: asks for the one ``kAhead`` images on.
constexpr int64_t kAhead = 4, kLine = 64 / sizeof(float), kMostLines = 16;
inline void fetch(const float* x, Shape s, int64_t n, int64_t c) {
  if (n + kAhead >= s.batch) return;
  const float* p = x + s.offset(n + kAhead, c);
  for (int64_t i = 0, end = std::min(s.plane(), kMostLines * kLine); i < end; i += kLine) __builtin_prefetch(p + i);
}

struct Affine {
  float scale = 1, shift = 0;
  template <class T>
  T operator()(T x) const {
    return x * scale + shift;
  }
};

template <class T>
inline T relu(T v) {
  return v > 0 ? v : T{};
}

// y = f(x), then ReLU if asked for; y may be x.
template <bool Relu>
void apply(const float* x, float* y, int64_t n, Affine f) {
  sweep(n, [=](int64_t i, auto kind) {
    const auto v = f(get<decltype(kind)>(x + i));
    put(y + i, Relu ? relu(v) : v);
  });
}

// y = f(x) + add; y may be x.
inline void apply_add(const float* x, const float* add, float* y, int64_t n, Affine f) {
  sweep(n, [=](int64_t i, auto kind) {
    using T = decltype(kind);
    put(y + i, f(get<T>(x + i)) + get<T>(add + i));
  });
}

}  // namespace
