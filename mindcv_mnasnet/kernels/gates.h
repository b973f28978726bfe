// Squeeze-and-excitation around its two small layers: means of planes, and planes times gates.
#pragma once

#include "statistics.h"
#include "team.h"

namespace {

struct Pool {
  Shape shape;
  const float* x;
  float* y;

  void operator()(int64_t plane) const {
    y[plane] = static_cast<float>(Moments::plane_mean(x + plane * shape.plane(), shape.plane()));
  }
};

struct Spread {  // the gradient of Pool
  Shape shape;
  const float* dy;
  float* dx;

  void operator()(int64_t plane) const {
    std::fill_n(dx + plane * shape.plane(), shape.plane(), dy[plane] / static_cast<float>(shape.plane()));
  }
};

struct Scale {
  Shape shape;
  const float *x, *gates;
  float* y;

  void operator()(int64_t plane) const {
    const int64_t at = plane * shape.plane();
    apply<false>(x + at, y + at, shape.plane(), {gates[plane], 0.f});
  }
};

struct ScaleBackward {
  Shape shape;
  const float *x, *gates, *dy;
  float *dx, *dgates;

  void operator()(int64_t plane) const {
    const int64_t n = shape.plane(), at = plane * n;
    const float gate = gates[plane];
    const Pair sums = sweep_sums(n, [=](int64_t i, auto kind, PairSum& sum) {
      using T = decltype(kind);
      const T g = get<T>(dy + at + i);
      put(dx + at + i, g * gate);
      sum.add(g * get<T>(x + at + i), T{});
    });
    dgates[plane] = static_cast<float>(sums.first);
  }
};

template <class Work>
int run_planes(Work work) {
  for_channels(work.shape.batch * work.shape.channels, work);
  return 0;
}

}  // namespace
