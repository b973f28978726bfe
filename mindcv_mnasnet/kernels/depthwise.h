// act(bn2(depthwise(act(bn1(x))))) and its gradients; bn1 and its ReLU may be missing, and either ReLU be followed by
// a quantization.
//
// None of it mixes channels but for the ranges of quantizations, so all of it is done while a channel's planes are in
// cache; the convolution is computed again in the backward pass instead of being stored.
#pragma once

#include <cstring>
#include <memory>
#include <type_traits>

#include "convolution.h"
#include "norms.h"

namespace {

struct Settings {  // of a depthwise operator: int32 {kernel, stride, same, pre, fixed}
  int kernel, stride, same, pre, fixed;  // fixed: the statistics are given ones and have no gradient
};

inline Settings settings_of(const int32_t* c) { return {c[0], c[1], c[2], c[3], c[4]}; }

template <int K, int S>
struct Buffers {
  std::vector<float> phases, gradients, flat, plane;
  std::unique_ptr<float[]> planes;

  Buffers(const Depthwise<K, S>& op, bool backward)
      : phases(Depthwise<K, S>::kPhases * op.phase_size, 0.f),
        gradients(backward ? Depthwise<K, S>::kPhases * op.phase_size : 0, 0.f),
        flat(op.flat_size, 0.f),
        plane(std::max(op.in.plane(), op.out.plane()) + kLanes),
        planes(backward ? new float[op.out.batch * op.out.plane() + kLanes] : nullptr) {}

  // A plane of the input as the convolution takes it.
  template <bool Pre, bool Quantized>
  void take(const Depthwise<K, S>& op, const float* x, Affine f, const Quantizer& quantize) {
    if (Pre && Quantized)
      apply_quantized<true>(x, plane.data(), op.in.plane(), f, quantize);
    else if (Pre)
      apply<true>(x, plane.data(), op.in.plane(), f);
    else
      std::memcpy(plane.data(), x, op.in.plane() * sizeof(float));
    op.copy_in(plane.data(), phases.data());
  }
};

struct DepthwiseForward {  // the tensors of the operator
  Shape in;
  const float *x, *w;
  Norm pre, post = {};
  Point pre_point = {}, post_point = {};
  Shape out = {};
  float* y = nullptr;

  template <bool Quantized>
  int run(const Settings& settings) const;
};

template <int K, int S, bool Pre, bool Quantized>
struct Forward : DepthwiseForward {
  Depthwise<K, S> op;

  Forward(const DepthwiseForward& tensors, bool same) : DepthwiseForward(tensors), op(in, out, same) {}

  // Sees a channel of the input.
  Affine before(int64_t c, Extremes* seen) const {
    return NormForward{op.in, x, nullptr, nullptr, pre, true}.settle(c, seen);
  }

  // Convolves a channel, of which y gets what comes before ``post``.
  Affine convolve(int64_t c, Buffers<K, S>& s, Affine first, const Quantizer& quantize, Extremes* seen) const {
    const int64_t out_plane = op.out.plane();
    Moments m;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      fetch(x, op.in, n, c);
      s.template take<Pre, Quantized>(op, x + op.in.offset(n, c), first, quantize);
      op.forward(s.phases.data(), w + c * K * K, s.flat.data());
      op.rows_out(s.flat.data(), s.plane.data());
      if (!post.fixed) m.add(s.plane.data(), out_plane);
      if (seen != nullptr) seen->see(s.plane.data(), out_plane);
      std::memcpy(y + op.out.offset(n, c), s.plane.data(), out_plane * sizeof(float));
    }
    return post.settle(c, m);
  }

  void after(int64_t c, Affine second, const Quantizer& quantize) const {
    for (int64_t n = 0; n < op.in.batch; ++n) {
      float* to = y + op.out.offset(n, c);
      if (Quantized)
        apply_quantized<true>(to, to, op.out.plane(), second, quantize);
      else
        apply<true>(to, to, op.out.plane(), second);
    }
  }

  int run() const {
    const auto scratch = [this] { return Buffers<K, S>(op, false); };
    if (Quantized) return run_quantized(scratch);
    for_channels(op.in.channels, scratch, [this](int64_t c, Buffers<K, S>& s) {
      const Affine first = Pre ? before(c, nullptr) : Affine{};
      after(c, convolve(c, s, first, {}, nullptr), {});
    });
    return 0;
  }

  template <class MakeScratch>
  int run_quantized(const MakeScratch& scratch) const {
    std::vector<Affine> affine(op.in.channels);
    std::vector<Extremes> seen(op.in.channels);
    Quantizer quantize;
    if (Pre) {
      for_channels(op.in.channels, [&](int64_t c) {
        Extremes ends;
        affine[c] = before(c, pre_point.observes ? &ends : nullptr);
        seen[c] = extremes_after(ends, affine[c], true);
      });
      quantize = pre_point.settle(all_of(seen));
    }
    for_channels(op.in.channels, scratch, [&](int64_t c, Buffers<K, S>& s) {
      Extremes ends;
      affine[c] = convolve(c, s, affine[c], quantize, post_point.observes ? &ends : nullptr);
      seen[c] = extremes_after(ends, affine[c], true);
    });
    quantize = post_point.settle(all_of(seen));
    for_channels(op.in.channels, [&](int64_t c) { after(c, affine[c], quantize); });
    return 0;
  }
};

struct DepthwiseBackward {  // the tensors of the operator
  Shape in;
  const float *x, *w;
  Shape out;
  const float* dy;
  Norm pre, post = {};  // their moving statistics are those that were in use
  Quantizer pre_quantizer = {}, post_quantizer = {};
  float* outputs[6] = {};  // dx, dw, and of gammas and betas
  bool fixed = false;

  template <bool Quantized>
  int run(const Settings& settings) const;
};

template <int K, int S, bool Pre, bool Quantized>
struct Backward : DepthwiseBackward {
  Depthwise<K, S> op;
  float *dx, *dw, *dgamma1, *dbeta1, *dgamma2, *dbeta2;

  Backward(const DepthwiseBackward& tensors, bool same)
      : DepthwiseBackward(tensors),
        op(in, out, same),
        dx(outputs[0]),
        dw(outputs[1]),
        dgamma1(outputs[2]),
        dbeta1(outputs[3]),
        dgamma2(outputs[4]),
        dbeta2(outputs[5]) {}

  int run() const {
    const auto scratch = [this] { return Buffers<K, S>(op, true); };
    for_channels(op.in.channels, scratch, [this](int64_t c, Buffers<K, S>& s) { channel(c, s); });
    return 0;
  }

  void channel(int64_t c, Buffers<K, S>& s) const {
    const double images = static_cast<double>(op.in.batch);
    NormGradient first, second(post, post_quantizer, c);
    if (Pre) first = NormGradient(pre, pre_quantizer, c);
    convolve_again(c, s, first.f, second);
    second.settle(images * op.out.plane(), fixed, dgamma2 + c, dbeta2 + c);
    std::fill(s.flat.begin(), s.flat.end(), 0.f);
    through_convolution(c, s, second, first);
    if (!Pre) return;
    first.settle(images * op.in.plane(), fixed, dgamma1 + c, dbeta1 + c);
    for (int64_t n = 0; n < op.in.batch; ++n) {
      const int64_t at = op.in.offset(n, c);
      fetch(x, op.in, n, c);
      fetch(dx, op.in, n, c);
      first.template apply<false, false>(x + at, dx + at, dx + at, op.in.plane());
    }
  }

  // What came out of the convolution goes to s.planes, and the sums that its norm needs to ``second``.
  void convolve_again(int64_t c, Buffers<K, S>& s, Affine first, NormGradient& second) const {
    float* flat = s.flat.data() + op.margin;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      float* z = s.planes.get() + n * op.out.plane();
      fetch(x, op.in, n, c);
      fetch(dy, op.out, n, c);
      s.template take<Pre, Quantized>(op, x + op.in.offset(n, c), first, pre_quantizer);
      op.forward(s.phases.data(), w + c * K * K, flat);
      op.rows_out(flat, z);
      second.template add<true, Quantized>(z, dy + op.out.offset(n, c), nullptr, op.out.plane());
    }
  }

  // dw, and dx as it is behind the first norm.
  void through_convolution(int64_t c, Buffers<K, S>& s, const NormGradient& second, NormGradient& first) const {
    float *flat = s.flat.data() + op.margin, *d = s.plane.data();
    double weights[K * K] = {};
    for (int64_t n = 0; n < op.in.batch; ++n) {
      const int64_t at = op.in.offset(n, c);
      fetch(x, op.in, n, c);
      fetch(dy, op.out, n, c);
      const float* z = s.planes.get() + n * op.out.plane();
      second.template apply<true, Quantized>(z, dy + op.out.offset(n, c), d, op.out.plane());
      op.rows_in(d, flat);
      s.template take<Pre, Quantized>(op, x + at, first.f, pre_quantizer);
      op.backward_weight(s.phases.data(), flat, weights);
      op.backward_input(flat, w + c * K * K, s.gradients.data());
      op.copy_back(s.gradients.data(), d);
      if (Pre)
        first.template add<true, Quantized>(x + at, d, dx + at, op.in.plane());
      else
        std::memcpy(dx + at, d, op.in.plane() * sizeof(float));
    }
    for (int i = 0; i < K * K; ++i) dw[c * K * K + i] = static_cast<float>(weights[i]);
  }
};

// Calls ``run`` with the kernel, the stride, and whether there is a norm before, as types.
template <int N>
using Number = std::integral_constant<int, N>;

template <class Run>
int dispatch(const Settings& c, const Run& run) {
  const auto with = [&](auto kernel, auto stride) {
    return c.pre ? run(kernel, stride, std::true_type{}) : run(kernel, stride, std::false_type{});
  };
  switch (c.kernel * 10 + c.stride) {
    case 31: return with(Number<3>{}, Number<1>{});
    case 32: return with(Number<3>{}, Number<2>{});
    case 51: return with(Number<5>{}, Number<1>{});
    case 52: return with(Number<5>{}, Number<2>{});
    case 71: return with(Number<7>{}, Number<1>{});
    case 72: return with(Number<7>{}, Number<2>{});
    default: return 2;
  }
}

template <bool Quantized>
int DepthwiseForward::run(const Settings& settings) const {
  return dispatch(settings, [&](auto kernel, auto stride, auto has_pre) {
    return Forward<kernel(), stride(), has_pre(), Quantized>(*this, settings.same).run();
  });
}

template <bool Quantized>
int DepthwiseBackward::run(const Settings& settings) const {
  return dispatch(settings, [&](auto kernel, auto stride, auto has_pre) {
    return Backward<kernel(), stride(), has_pre(), Quantized>(*this, settings.same).run();
  });
}

}  // namespace
