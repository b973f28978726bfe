// Batch norm with a ReLU or a summand or neither behind it, and its gradient.
#pragma once

#include "planes.h"

namespace {

template <bool Relu, bool Add>
struct NormForward {
  using Scratch = None;
  Shape shape;
  const float *x, *add;
  float* y;
  Norm norm;
  float eps;
  bool training;

  void operator()(int64_t c, Scratch&) const {
    if (training) {
      Moments m;
      for (int64_t n = 0; n < shape.batch; ++n) m.add(x + shape.offset(n, c), shape.plane());
      norm.mean[c] = static_cast<float>(m.mean);
      norm.variance[c] = static_cast<float>(m.squares / m.count);
    }
    const Affine f = normaliser(norm.mean[c], norm.variance[c], norm.gamma[c], norm.beta[c], eps);
    for (int64_t n = 0; n < shape.batch; ++n) {
      const int64_t at = shape.offset(n, c);
      apply<Relu, Add>(x + at, Add ? add + at : nullptr, y + at, shape.plane(), f);
    }
  }
};

template <bool Relu>
struct NormBackward {
  using Scratch = None;
  Shape shape;
  const float *x, *dy;
  Norm norm;
  float *dx, *dgamma, *dbeta;
  float eps;
  bool fixed;

  void operator()(int64_t c, Scratch&) const {
    const Affine f = normaliser(norm.mean[c], norm.variance[c], norm.gamma[c], norm.beta[c], eps);
    const float inverse = inverse_deviation(norm.variance[c], eps);
    NormSums sums;
    for (int64_t n = 0; n < shape.batch; ++n) {
      const int64_t at = shape.offset(n, c);
      mask_and_sum<Relu>(x + at, dy + at, dx + at, shape.plane(), f, norm.mean[c], inverse, sums);
    }
    dgamma[c] = static_cast<float>(sums.gx);
    dbeta[c] = static_cast<float>(sums.g);
    if (fixed) sums = {};
    const double count = static_cast<double>(shape.batch) * shape.plane();
    for (int64_t n = 0; n < shape.batch; ++n) {
      const int64_t at = shape.offset(n, c);
      norm_gradient(x + at, dx + at, dx + at, shape.plane(), f.scale, norm.mean[c], inverse, sums, count);
    }
  }
};

template <class Work>
int run_norm(Work work) {
  for_channels(work.shape.channels, work);
  return 0;
}

int norm_forward(Shape s, const float* x, const float* add, float* y, Norm norm, float eps, bool training, int relu) {
  if (add) return run_norm(NormForward<false, true>{s, x, add, y, norm, eps, training});
  if (relu) return run_norm(NormForward<true, false>{s, x, nullptr, y, norm, eps, training});
  return run_norm(NormForward<false, false>{s, x, nullptr, y, norm, eps, training});
}

}  // namespace
