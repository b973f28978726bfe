// Squeeze-and-excitation around its two small layers: means of planes, and planes times gates.
#pragma once

#include "planes.h"

namespace {

struct Pool {
  using Scratch = None;
  Shape shape;
  const float* x;
  float* y;

  void operator()(int64_t plane, Scratch&) const {
    Moments m;
    m.add(x + plane * shape.plane(), shape.plane());
    y[plane] = static_cast<float>(m.mean);
  }
};

struct Spread {  // the gradient of Pool
  using Scratch = None;
  Shape shape;
  const float* dy;
  float* dx;

  void operator()(int64_t plane, Scratch&) const {
    std::fill_n(dx + plane * shape.plane(), shape.plane(), dy[plane] / static_cast<float>(shape.plane()));
  }
};

struct Scale {
  using Scratch = None;
  Shape shape;
  const float *x, *gates;
  float* y;

  void operator()(int64_t plane, Scratch&) const {
    const int64_t at = plane * shape.plane();
    apply<false, false>(x + at, nullptr, y + at, shape.plane(), {gates[plane], 0.f});
  }
};

struct ScaleBackward {
  using Scratch = None;
  Shape shape;
  const float *x, *gates, *dy;
  float *dx, *dgates;

  void operator()(int64_t plane, Scratch&) const {
    const int64_t n = shape.plane(), at = plane * n;
    Vec acc = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const Vec g = load(dy + at + i);
      acc += g * load(x + at + i);
      store(dx + at + i, g * gates[plane]);
    }
    float total = sum_lanes(acc);
    for (; i < n; ++i) {
      total += dy[at + i] * x[at + i];
      dx[at + i] = dy[at + i] * gates[plane];
    }
    dgates[plane] = total;
  }
};

template <class Work>
int run_planes(Work work) {
  for_channels(work.shape.batch * work.shape.channels, work);
  return 0;
}

}  // namespace
