// act(bn2(depthwise(act(bn1(x))))) and its gradients; bn1 and its ReLU may be missing.
//
// None of it mixes channels, so all of it is done while a channel's planes are in cache; the convolution is computed
// again in the backward pass instead of being stored.
#pragma once

#include "convolution.h"

namespace {

template <int K, int S>
struct Buffers {
  std::vector<float> phases, gradients, flat, planes, plane;
  template <class Work>
  explicit Buffers(const Work& work)
      : phases(Depthwise<K, S>::kPhases * work.op.phase_size, 0.f),
        gradients(work.backward ? Depthwise<K, S>::kPhases * work.op.phase_size : 0, 0.f),
        flat(work.op.flat_size, 0.f),
        planes(work.backward ? work.op.out.batch * work.op.out.plane() + kLanes : 0),
        plane(std::max(work.op.in.plane(), work.op.out.plane()) + kLanes) {}

  // A plane of the input as the convolution takes it.
  template <bool Normalise>
  void take(const Depthwise<K, S>& op, const float* x, Affine f) {
    if (Normalise)
      apply<true, false>(x, nullptr, plane.data(), op.in.plane(), f);
    else
      std::memcpy(plane.data(), x, op.in.plane() * sizeof(float));
    op.copy_in(plane.data(), phases.data());
  }
};

template <int K, int S, bool Pre>
struct Forward {
  using Scratch = Buffers<K, S>;
  static constexpr bool backward = false;
  Depthwise<K, S> op;
  const float *x, *w;
  float* y;
  Norm pre, post;
  float eps;
  bool training;

  void operator()(int64_t c, Scratch& s) const {
    const int64_t plane = op.in.plane(), out_plane = op.out.plane();
    Affine first{1, 0};
    if (Pre) {
      if (training) {
        Moments m;
        for (int64_t n = 0; n < op.in.batch; ++n) {
          fetch(x, op.in, n, c);
          m.add(x + op.in.offset(n, c), plane);
        }
        pre.mean[c] = static_cast<float>(m.mean);
        pre.variance[c] = static_cast<float>(m.squares / m.count);
      }
      first = normaliser(pre.mean[c], pre.variance[c], pre.gamma[c], pre.beta[c], eps);
    }
    Moments m;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      fetch(x, op.in, n, c);
      s.template take<Pre>(op, x + op.in.offset(n, c), first);
      op.forward(s.phases.data(), w + c * K * K, s.flat.data());
      op.rows_out(s.flat.data(), s.plane.data());
      if (training) m.add(s.plane.data(), out_plane);
      std::memcpy(y + op.out.offset(n, c), s.plane.data(), out_plane * sizeof(float));
    }
    if (training) {
      post.mean[c] = static_cast<float>(m.mean);
      post.variance[c] = static_cast<float>(m.squares / m.count);
    }
    const Affine second = normaliser(post.mean[c], post.variance[c], post.gamma[c], post.beta[c], eps);
    for (int64_t n = 0; n < op.in.batch; ++n) {
      float* to = y + op.out.offset(n, c);
      apply<true, false>(to, nullptr, to, out_plane, second);
    }
  }
};

template <int K, int S, bool Pre>
struct Backward {
  using Scratch = Buffers<K, S>;
  static constexpr bool backward = true;
  Depthwise<K, S> op;
  const float *x, *w, *dy;
  Norm pre, post;
  float *dx, *dw, *dgamma1, *dbeta1, *dgamma2, *dbeta2;
  float eps;
  bool fixed;

  void operator()(int64_t c, Scratch& s) const {
    const int64_t plane = op.in.plane(), out_plane = op.out.plane();
    const double images = static_cast<double>(op.in.batch), count = images * plane, out_count = images * out_plane;
    Affine first{1, 0};
    float inverse1 = 1;
    if (Pre) {
      first = normaliser(pre.mean[c], pre.variance[c], pre.gamma[c], pre.beta[c], eps);
      inverse1 = inverse_deviation(pre.variance[c], eps);
    }
    NormSums sums2;
    float* flat = s.flat.data() + op.margin;
    const Affine second = normaliser(post.mean[c], post.variance[c], post.gamma[c], post.beta[c], eps);
    const float inverse2 = inverse_deviation(post.variance[c], eps);
    float* g = s.gradients.data();  // a plane of masked gradients: not needed here, only its sums
    for (int64_t n = 0; n < op.in.batch; ++n) {
      float* z = s.planes.data() + n * out_plane;
      fetch(x, op.in, n, c);
      fetch(dy, op.out, n, c);
      s.template take<Pre>(op, x + op.in.offset(n, c), first);
      op.forward(s.phases.data(), w + c * K * K, flat);
      op.rows_out(flat, z);
      mask_and_sum<true>(z, dy + op.out.offset(n, c), g, out_plane, second, post.mean[c], inverse2, sums2);
    }
    dgamma2[c] = static_cast<float>(sums2.gx);
    dbeta2[c] = static_cast<float>(sums2.g);
    if (fixed) sums2 = {};
    std::fill(s.flat.begin(), s.flat.end(), 0.f);
    const float mean_g = static_cast<float>(sums2.g / out_count), mean_gx = static_cast<float>(sums2.gx / out_count);
    double weights[K * K] = {};
    NormSums sums1;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      fetch(x, op.in, n, c);
      fetch(dy, op.out, n, c);
      const float* g = dy + op.out.offset(n, c);
      const float* z = s.planes.data() + n * out_plane;
      float* d = s.plane.data();
      for (int64_t i = 0; i < out_plane; ++i) {
        const float masked = z[i] * second.scale + second.shift > 0 ? g[i] : 0;
        d[i] = second.scale * (masked - mean_g - (z[i] - post.mean[c]) * inverse2 * mean_gx);
      }
      op.rows_in(d, flat);
      s.template take<Pre>(op, x + op.in.offset(n, c), first);
      op.backward_weight(s.phases.data(), flat, weights);
      op.backward_input(flat, w + c * K * K, s.gradients.data());
      float* to = dx + op.in.offset(n, c);
      op.copy_back(s.gradients.data(), d);
      if (Pre)
        mask_and_sum<true>(x + op.in.offset(n, c), d, to, plane, first, pre.mean[c], inverse1, sums1);
      else
        std::memcpy(to, d, plane * sizeof(float));
    }
    for (int i = 0; i < K * K; ++i) dw[c * K * K + i] = static_cast<float>(weights[i]);
    if (!Pre) return;
    dgamma1[c] = static_cast<float>(sums1.gx);
    dbeta1[c] = static_cast<float>(sums1.g);
    if (fixed) sums1 = {};
    for (int64_t n = 0; n < op.in.batch; ++n) {
      const int64_t at = op.in.offset(n, c);
      fetch(x, op.in, n, c);
      fetch(dx, op.in, n, c);
      norm_gradient(x + at, dx + at, dx + at, plane, first.scale, pre.mean[c], inverse1, sums1, count);
    }
  }
};

struct Config {  // of a depthwise operator: int32 {kernel, stride, same, pre, fixed}
  int kernel, stride, same, pre, fixed;  // fixed: the statistics are given ones and have no gradient
};

template <template <int, int, bool> class Work, int K, int S, class Run>
int with_norms(const Config& c, Run run) {
  const Depthwise<K, S> op(run.in, run.out, c.same);
  return c.pre ? run.template operator()<Work<K, S, true>>(op) : run.template operator()<Work<K, S, false>>(op);
}

template <template <int, int, bool> class Work, class Run>
int dispatch(const Config& c, Run run) {
  switch (c.kernel * 10 + c.stride) {
    case 31: return with_norms<Work, 3, 1>(c, run);
    case 32: return with_norms<Work, 3, 2>(c, run);
    case 51: return with_norms<Work, 5, 1>(c, run);
    case 52: return with_norms<Work, 5, 2>(c, run);
    case 71: return with_norms<Work, 7, 1>(c, run);
    case 72: return with_norms<Work, 7, 2>(c, run);
    default: return 2;
  }
}

inline Config config_of(const void* p) {
  const int32_t* c = static_cast<const int32_t*>(p);
  return {c[0], c[1], c[2], c[3], c[4]};
}

struct RunForward {
  Shape in, out;
  float** p;  // x w gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 y
  float eps;
  bool training;
  template <class Work, class Op>
  int operator()(Op op) const {
    const Norm pre{p[2], p[3], p[4], p[5]}, post{p[6], p[7], p[8], p[9]};
    for_channels(in.channels, Work{op, p[0], p[1], p[10], pre, post, eps, training});
    return 0;
  }
};

struct RunBackward {
  Shape in, out;
  float** p;  // x w dy gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2, . ., dx dw and of gammas and betas
  float eps;
  bool fixed;
  template <class Work, class Op>
  int operator()(Op op) const {
    const Norm pre{p[3], p[4], p[5], p[6]}, post{p[7], p[8], p[9], p[10]};
    Work work{op, p[0], p[1], p[2], pre, post, p[13], p[14], p[15], p[16], p[17], p[18], eps, fixed};
    for_channels(in.channels, work);
    return 0;
  }
};

}  // namespace
