// What batch norms gather over a channel: moments forward, sums of gradients backward.
#pragma once

#include "quantizer.h"

namespace {

// Mean and variance gathered plane by plane (Chan's update). A plane takes one sweep, around the mean so far: what
// that is off by is in the variance anyway, so that nothing is lost but for rounding.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void add(const float* x, int64_t n) {
    const float around = static_cast<float>(count > 0 ? mean : plane_mean(x, n));
    const Pair sums = sweep_sums(n, [=](int64_t i, auto kind, PairSum& sum) {
      const auto d = get<decltype(kind)>(x + i) - around;
      sum.add(d, d * d);
    });
    const double plane_squares = sums.second - sums.first * sums.first / n;
    const double exact_mean = around + sums.first / n, delta = exact_mean - mean, all = count + n;
    mean += delta * n / all;
    squares += std::max(plane_squares, 0.) + delta * delta * count * n / all;
    count = all;
  }

  static double plane_mean(const float* x, int64_t n) {
    const Pair sums = sweep_sums(n, [=](int64_t i, auto kind, PairSum& sum) {
      const auto v = get<decltype(kind)>(x + i);
      sum.add(v, decltype(v){});
    });
    return sums.first / n;
  }
};

// A batch norm. Its statistics are the batch's own, unless they are ``fixed``: the moving ones, which then stay.
struct Norm {
  const float *gamma = nullptr, *beta = nullptr, *moving_mean = nullptr, *moving_variance = nullptr;
  float eps = 0, share = 0;  // of the batch in the next moving statistics
  bool fixed = true;
  float *mean = nullptr, *variance = nullptr;  // those in use, if somebody wants them
  float *next_mean = nullptr, *next_variance = nullptr;

  void train(const float* factors) {
    eps = factors[0];
    share = factors[1];
    fixed = false;
  }

  Affine settle(int64_t c, const Moments& m) const {
    if (mean == nullptr) return affine(c, moving_mean[c], moving_variance[c]);
    mean[c] = fixed ? moving_mean[c] : static_cast<float>(m.mean);
    variance[c] = fixed ? moving_variance[c] : static_cast<float>(m.squares / m.count);
    next_mean[c] = moving_mean[c];
    next_variance[c] = moving_variance[c];
    if (!fixed) {
      const double unbiased = m.squares / std::max(m.count - 1, 1.);
      next_mean[c] = static_cast<float>((1 - share) * next_mean[c] + share * m.mean);
      next_variance[c] = static_cast<float>((1 - share) * next_variance[c] + share * unbiased);
    }
    return affine(c, mean[c], variance[c]);
  }

  Affine affine(int64_t c, double mean_, double variance_) const {
    const double scale = gamma[c] / std::sqrt(variance_ + eps);
    return {static_cast<float>(scale), static_cast<float>(beta[c] - mean_ * scale)};
  }
};

// A channel's batch norm with the ReLU and the quantization behind it, as its gradient sees them.
struct NormGradient {
  Affine f;
  Quantizer quantize;
  float mean = 0, inverse = 1, mean_g = 0, mean_gx = 0;  // inverse: of the deviation
  double sum_g = 0, sum_gx = 0;                          // of gradients g, and of g * xhat

  NormGradient() = default;
  // The norm's moving statistics are those that were in use.
  NormGradient(const Norm& norm, const Quantizer& quantizer, int64_t c)
      : f(norm.affine(c, norm.moving_mean[c], norm.moving_variance[c])),
        quantize(quantizer),
        mean(norm.moving_mean[c]),
        inverse(static_cast<float>(1 / std::sqrt(static_cast<double>(norm.moving_variance[c]) + norm.eps))) {}

  // The gradient g of the output where the output depends on x.
  template <bool Relu, bool Quantized, class T>
  T mask(T x, T g) const {
    if (Relu) g = f(x) > 0 ? g : T{};
    return Quantized ? quantize.pass(f(x), g) : g;
  }

  // Masks g, to ``masked`` unless that is null (it may be g), and adds up.
  template <bool Relu, bool Quantized>
  void add(const float* x, const float* g, float* masked, int64_t n) {
    const Pair sums = sweep_sums(n, [=, own = *this](int64_t i, auto kind, PairSum& sum) {
      using T = decltype(kind);
      const T v = get<T>(x + i), d = own.template mask<Relu, Quantized>(v, get<T>(g + i));
      if (masked != nullptr) put(masked + i, d);
      sum.add(d, d * ((v - own.mean) * own.inverse));
    });
    sum_g += sums.first;
    sum_gx += sums.second;
  }

  // When all is added: the gradients of gamma and beta. Fixed statistics have no gradient.
  void settle(double count, bool fixed, float* dgamma, float* dbeta) {
    *dgamma = static_cast<float>(sum_gx);
    *dbeta = static_cast<float>(sum_g);
    mean_g = fixed ? 0 : static_cast<float>(sum_g / count);
    mean_gx = fixed ? 0 : static_cast<float>(sum_gx / count);
  }

  // dx = scale * (g - mean(g) - xhat * mean(g xhat)), of g masked before or here; dx may be g.
  template <bool Relu, bool Quantized>
  void apply(const float* x, const float* g, float* dx, int64_t n) const {
    sweep(n, [=, own = *this](int64_t i, auto kind) {  // copies, which no store can change
      using T = decltype(kind);
      const T v = get<T>(x + i), d = own.template mask<Relu, Quantized>(v, get<T>(g + i));
      put(dx + i, own.f.scale * (d - own.mean_g - (v - own.mean) * own.inverse * own.mean_gx));
    });
  }
};

}  // namespace
