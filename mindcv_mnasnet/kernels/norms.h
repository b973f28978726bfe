// Batch norm with a ReLU, a summand, a quantization or nothing behind it, and its gradient.
#pragma once

#include <vector>

#include "statistics.h"
#include "team.h"

namespace {

// What a channel's values become by f and, if asked for, ReLU: their extremes, of those of x.
inline Extremes extremes_after(const Extremes& x, Affine f, bool with_relu) {
  Extremes y;
  const float ends[] = {f(x.least), f(x.most)};
  for (const float end : ends) y.see(with_relu && end < 0 ? 0 : end, with_relu && end < 0 ? 0 : end);
  return y;
}

inline Extremes all_of(const std::vector<Extremes>& channels) {
  Extremes all;
  for (const Extremes& one : channels) all.see(one.least, one.most);
  return all;
}

struct NormForward {
  Shape shape;
  const float *x, *add;  // add: a summand, or null
  float* y;
  Norm norm;
  bool relu = false;

  void configure(const int32_t* config) {
    relu = config[0] != 0;
    if (!config[1]) add = nullptr;
  }

  // Sees a channel of x: for its statistics where they are not fixed, and for ``seen`` where that is not null.
  Affine settle(int64_t c, Extremes* seen) const {
    Moments m;
    for (int64_t n = 0; n < shape.batch; ++n) {
      if (norm.fixed && seen == nullptr) break;
      const float* plane = x + shape.offset(n, c);
      if (!norm.fixed) m.add(plane, shape.plane());
      if (seen != nullptr) seen->see(plane, shape.plane());
    }
    return norm.settle(c, m);
  }

  int run() const {
    for_channels(shape.channels, [this](int64_t c) {
      const Affine f = settle(c, nullptr);
      for (int64_t n = 0; n < shape.batch; ++n) {
        const int64_t at = shape.offset(n, c);
        if (add != nullptr)
          apply_add(x + at, add + at, y + at, shape.plane(), f);
        else if (relu)
          apply<true>(x + at, y + at, shape.plane(), f);
        else
          apply<false>(x + at, y + at, shape.plane(), f);
      }
    });
    return 0;
  }

  // Quantization needs the range of all channels before the first value is done.
  int run_quantized(const Point& point) const {
    std::vector<Affine> affine(shape.channels);
    std::vector<Extremes> seen(shape.channels);
    for_channels(shape.channels, [&](int64_t c) {
      Extremes ends;
      affine[c] = settle(c, point.observes ? &ends : nullptr);
      seen[c] = extremes_after(ends, affine[c], relu);
    });
    const Quantizer quantize = point.settle(all_of(seen));
    for_channels(shape.channels, [&](int64_t c) {
      for (int64_t n = 0; n < shape.batch; ++n) {
        const int64_t at = shape.offset(n, c);
        if (relu)
          apply_quantized<true>(x + at, y + at, shape.plane(), affine[c], quantize);
        else
          apply_quantized<false>(x + at, y + at, shape.plane(), affine[c], quantize);
      }
    });
    return 0;
  }
};

struct NormBackward {
  Shape shape;
  const float *x, *dy;
  Norm norm;  // its moving statistics are those that were in use
  Quantizer quantize = {};
  float *dx = nullptr, *dgamma = nullptr, *dbeta = nullptr;
  bool fixed = false;

  template <bool Relu, bool Quantized>
  int run() const {
    for_channels(shape.channels, [this](int64_t c) {
      NormGradient gradient(norm, quantize, c);
      for (int64_t n = 0; n < shape.batch; ++n) {
        const int64_t at = shape.offset(n, c);
        gradient.add<Relu, Quantized>(x + at, dy + at, nullptr, shape.plane());
      }
      gradient.settle(static_cast<double>(shape.batch) * shape.plane(), fixed, dgamma + c, dbeta + c);
      for (int64_t n = 0; n < shape.batch; ++n) {
        const int64_t at = shape.offset(n, c);
        gradient.apply<Relu, Quantized>(x + at, dy + at, dx + at, shape.plane());
      }
    });
    return 0;
  }
};

}  // namespace
