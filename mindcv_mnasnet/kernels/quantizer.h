// 8-bit fake quantization of a tensor, by a range that training observes.
#pragma once

#include <cmath>
#include <limits>

#include "planes.h"

namespace {

constexpr float kUnbounded = std::numeric_limits<float>::infinity();
constexpr float kLevels = 255;  // steps between the ends of a range
constexpr float kTiny = 1e-8f;  // the least width of a range

// The nearest of 256 values from -zero * scale on; or not at all, where it is not ``on`` yet.
struct Quantizer {
  float scale = 1, zero = 0, inverse = 1, low = -kUnbounded, high = kUnbounded;
  bool on = false;

  Quantizer() = default;
  // state: {scale, zero, on, ...}
  explicit Quantizer(const float* state) : scale(state[0]), zero(state[1]), inverse(1 / scale), on(state[2] != 0) {
    if (!on) return;
    low = -zero * scale;
    high = (kLevels - zero) * scale;
  }

  template <class T>
  T operator()(T x) const {
    T steps = relu(x * inverse + (zero + 0.5f));
    steps = steps < kLevels ? steps : T{} + kLevels;
    return (truncate(steps) - zero) * scale;
  }

  // The gradient g where the value x was not cut off.
  template <class T>
  T pass(T x, T g) const {
    return ((x >= low) & (x <= high)) ? g : T{};
  }
};

// Least and most of what is seen; not a number, once one was seen.
struct Extremes {
  float least = kUnbounded, most = -kUnbounded;

  void see(float low, float high) {
    if (low < least || std::isnan(low)) least = low;
    if (high > most || std::isnan(high)) most = high;
  }
  void see(const float* x, int64_t n) {
    Vec low = Vec{} + least, high = Vec{} + most;
    sweep(n, [&](int64_t i, auto kind) {
      const auto v = get<decltype(kind)>(x + i);
      if constexpr (sizeof(v) == sizeof(float)) {
        see(v, v);
      } else {
        low = low < v ? low : v;  // in this order NaN stays until the next
        high = high > v ? high : v;
      }
    });
    for (int i = 0; i < kLanes; ++i) see(low[i], high[i]);
  }
};

// Where an activation's range is, {least, most}, and where the next one and the state go: {scale, zero, on, fixed}.
struct Point {
  const float* range = nullptr;
  float *next_range = nullptr, *state = nullptr;
  float decay = 0;  // of the range per batch
  bool observes = false, on = true, fixed = true;

  Point() = default;
  explicit Point(const float* given) : range(given) {}

  // timing: {delay, freeze, decay}: batches before it quantizes, and before the norm in front of it is fixed.
  void train(bool observing, const float* batches, const float* timing, bool* norm_fixed) {
    observes = observing;
    on = batches[0] > timing[0];
    fixed = batches[0] > timing[1];
    decay = timing[2];
    if (norm_fixed != nullptr) *norm_fixed = fixed;
  }

  // The range with this batch in it, and what it makes of values.
  Quantizer settle(const Extremes& seen) const {
    float low = range[0], high = range[1];
    if (observes) {
      const float share = high <= low ? 1.f : 1.f - decay;
      low += share * (std::min(seen.least, 0.f) - low);
      high += share * (std::max(seen.most, 0.f) - high);
    }
    if (next_range != nullptr) {
      next_range[0] = low;
      next_range[1] = high;
    }
    const float scale = std::max(high - low, kTiny) / kLevels;
    const float zero = std::floor(std::min(std::max(-low / scale, 0.f), kLevels) + 0.5f);
    state[0] = scale;
    state[1] = zero;
    state[2] = on;
    state[3] = fixed;
    return Quantizer(state);
  }
};

// y = f(x), then ReLU if asked for, quantized; y may be x.
template <bool Relu>
void apply_quantized(const float* x, float* y, int64_t n, Affine f, const Quantizer& quantize) {
  if (!quantize.on) return apply<Relu>(x, y, n, f);
  sweep(n, [=](int64_t i, auto kind) {
    const auto v = f(get<decltype(kind)>(x + i));
    put(y + i, quantize(Relu ? relu(v) : v));
  });
}

}  // namespace
