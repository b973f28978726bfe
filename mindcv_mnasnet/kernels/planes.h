// What all operators share: float32 NCHW tensors taken plane by plane, with sums in a fixed order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "team.h"

namespace {

// As many floats as a register holds: wider vectors are lowered by way of the stack.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

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

// Mean and variance gathered plane by plane (Chan's update), each plane in two sweeps while it is in cache.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void add(const float* x, int64_t n) {
    Vec acc = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) acc += load(x + i);
    double total = sum_lanes(acc);
    for (int64_t j = i; j < n; ++j) total += x[j];
    const double plane_mean = total / n;
    const float m = static_cast<float>(plane_mean);
    Vec acc2 = {}, acc1 = {};
    for (i = 0; i + kLanes <= n; i += kLanes) {
      const Vec d = load(x + i) - m;
      acc1 += d;
      acc2 += d * d;
    }
    double rest1 = sum_lanes(acc1), rest2 = sum_lanes(acc2);
    for (; i < n; ++i) {
      const float d = x[i] - m;
      rest1 += d;
      rest2 += d * d;
    }
    const double plane_squares = rest2 - rest1 * rest1 / n;
    const double exact_mean = m + rest1 / n, delta = exact_mean - mean, all = count + n;
    mean += delta * n / all;
    squares += plane_squares + delta * delta * count * n / all;
    count = all;
  }
};

struct Affine {
  float scale, shift;
};

inline Affine normaliser(double mean, double variance, float gamma, float beta, float eps) {
  const double scale = gamma / std::sqrt(variance + eps);
  return {static_cast<float>(scale), static_cast<float>(beta - mean * scale)};
}

// y = x * scale + shift, and ReLU or a summand if asked for; y may be x.
template <bool Relu, bool Add>
void apply(const float* x, const float* add, float* y, int64_t n, Affine f) {
  for (int64_t i = 0; i < n; ++i) {
    float v = x[i] * f.scale + f.shift;
    if (Add) v += add[i];
    y[i] = Relu ? (v > 0 ? v : 0) : v;
  }
}

struct Shape {
  int64_t batch, channels, height, width;
  int64_t plane() const { return height * width; }
  int64_t offset(int64_t n, int64_t c) const { return (n * channels + c) * plane(); }
};

inline Shape shape_of(const int64_t* s) { return {s[0], s[1], s[2], s[3]}; }

// Planes of one channel lie far apart, where no processor looks by itself: asks for the one ``kAhead`` pictures on.
constexpr int64_t kAhead = 4, kLine = 64 / sizeof(float), kMostLines = 16;
inline void fetch(const float* x, Shape s, int64_t n, int64_t c) {
  if (n + kAhead >= s.batch) return;
  const float* p = x + s.offset(n + kAhead, c);
  for (int64_t i = 0, end = std::min(s.plane(), kMostLines * kLine); i < end; i += kLine) __builtin_prefetch(p + i);
}

struct Norm {  // one batch norm: parameters, statistics of the batch (or given ones)
  const float *gamma, *beta;
  float *mean, *variance;
};

// Sums that the gradient of a batch norm needs: of g and of g * xhat.
struct NormSums {
  double g = 0, gx = 0;
};

// Masks the gradient g (in place) where the normalised value is not above zero, and adds up.
template <bool Relu>
void mask_and_sum(const float* x, const float* g_in, float* g, int64_t n, Affine f, float mean, float inverse,
                  NormSums& sums) {
  Vec acc_g = {}, acc_gx = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    Vec d = load(g_in + i);
    if (Relu) d = (v * f.scale + f.shift) > 0 ? d : Vec{};
    store(g + i, d);
    acc_g += d;
    acc_gx += d * ((v - mean) * inverse);
  }
  double total = sum_lanes(acc_g), total_x = sum_lanes(acc_gx);
  for (; i < n; ++i) {
    const float v = x[i];
    const float d = (!Relu || v * f.scale + f.shift > 0) ? g_in[i] : 0;
    g[i] = d;
    total += d;
    total_x += d * ((v - mean) * inverse);
  }
  sums.g += total;
  sums.gx += total_x;
}

// The gradient through a batch norm: scale * (g - mean(g) - xhat * mean(g xhat)).
inline void norm_gradient(const float* x, const float* g, float* dx, int64_t n, float scale, float mean, float inverse,
                          const NormSums& sums, double count) {
  const float mean_g = static_cast<float>(sums.g / count), mean_gx = static_cast<float>(sums.gx / count);
  for (int64_t i = 0; i < n; ++i) dx[i] = scale * (g[i] - mean_g - (x[i] - mean) * inverse * mean_gx);
}

inline float inverse_deviation(float variance, float eps) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance) + eps));
}

}  // namespace
