// The operators as MindSpore calls them: batch norm, ReLU, depthwise convolution and fake quantization of float32
// tensors (N, C, H, W) on CPUs.
//
// ``norm`` below stands for gamma, beta, mean, variance, (C,) each; ``statistics`` for mean and variance of the batch,
// and what the moving ones become; ``state`` for {scale, zero, on, fixed} of a quantization and the norm before it.
#include "depthwise.h"
#include "gates.h"
#include "points.h"
#include "tensors.h"

extern "C" void mnasnet_set_threads(int threads) { g_threads = std::max(1, threads); }

// x summand norm config {relu, add, fixed} factors {eps, share} -> y statistics
OPERATOR(mnasnet_norm_train) {
  TENSORS(13);
  NormForward op{t.shape(), t.take(), t.take(), nullptr, t.norm()};
  op.configure(t.integers());
  op.norm.train(t.take());
  op.y = t.take();
  t.outputs_of(op.norm);
  return op.run();
}

// x summand norm config factors -> y
OPERATOR(mnasnet_norm_infer) {
  TENSORS(9);
  NormForward op{t.shape(), t.take(), t.take(), nullptr, t.norm()};
  op.configure(t.integers());
  op.norm.eps = t.take()[0];
  op.y = t.take();
  return op.run();
}

// The same under names of their own: MindSpore takes operators of one name for one, with the gradient of the first.
OPERATOR(mnasnet_norm_add_train) {
  return mnasnet_norm_train(count, params, ranks, shapes, nullptr, nullptr, nullptr);
}

OPERATOR(mnasnet_norm_add_infer) {
  return mnasnet_norm_infer(count, params, ranks, shapes, nullptr, nullptr, nullptr);
}

// x dy norm config factors -> dx dgamma dbeta
OPERATOR(mnasnet_norm_backward) {
  TENSORS(11);
  NormBackward op{t.shape(), t.take(), t.take(), t.norm()};
  const int32_t* config = t.integers();
  op.norm.eps = t.take()[0];
  op.fixed = config[2] != 0;
  t.outputs_of(op);
  return config[0] ? op.run<true, false>() : op.run<false, false>();
}

// x norm range batches config {relu, ., .} factors timing -> y statistics range state
OPERATOR(mnasnet_quantized_norm_train) {
  TENSORS(17);
  NormForward op{t.shape(), t.take(), nullptr, nullptr, t.norm()};
  Point point(t.take());
  const float* batches = t.take();
  op.relu = t.integers()[0] != 0;
  op.norm.train(t.take());
  point.train(true, batches, t.take(), &op.norm.fixed);
  op.y = t.take();
  t.outputs_of(op.norm);
  t.outputs_of(point);
  return op.run_quantized(point);
}

// x norm range config factors -> y state
OPERATOR(mnasnet_quantized_norm_infer) {
  TENSORS(10);
  NormForward op{t.shape(), t.take(), nullptr, nullptr, t.norm()};
  Point point(t.take());
  op.relu = t.integers()[0] != 0;
  op.norm.eps = t.take()[0];
  op.y = t.take();
  point.state = t.take();
  return op.run_quantized(point);
}

// x dy norm state config factors -> dx dgamma dbeta
OPERATOR(mnasnet_quantized_norm_backward) {
  TENSORS(12);
  NormBackward op{t.shape(), t.take(), t.take(), t.norm()};
  const float* state = t.take();
  const bool relu = t.integers()[0] != 0;
  op.norm.eps = t.take()[0];
  op.quantize = Quantizer(state);
  op.fixed = state[3] != 0;
  t.outputs_of(op);
  return relu ? op.run<true, true>() : op.run<false, true>();
}

// x w norm1 norm2 config {kernel, stride, same, pre, fixed} factors -> y statistics1 statistics2
OPERATOR(mnasnet_depthwise_train) {
  TENSORS(21);
  DepthwiseForward op{t.shape(), t.take(), t.take(), t.norm(), t.norm()};
  const Settings settings = settings_of(t.integers());
  const float* factors = t.take();
  op.pre.train(factors);
  op.post.train(factors);
  op.out = t.shape();
  op.y = t.take();
  t.outputs_of(op.pre);
  t.outputs_of(op.post);
  return op.run<false>(settings);
}

// x w norm1 norm2 config factors -> y
OPERATOR(mnasnet_depthwise_infer) {
  TENSORS(13);
  DepthwiseForward op{t.shape(), t.take(), t.take(), t.norm(), t.norm()};
  const Settings settings = settings_of(t.integers());
  op.pre.eps = op.post.eps = t.take()[0];
  op.out = t.shape();
  op.y = t.take();
  return op.run<false>(settings);
}

// x w dy norm1 norm2 config factors -> dx dw dgamma1 dbeta1 dgamma2 dbeta2
OPERATOR(mnasnet_depthwise_backward) {
  TENSORS(19);
  DepthwiseBackward op{t.shape(), t.take(), t.take(), t.shape(), t.take(), t.norm(), t.norm()};
  const Settings settings = settings_of(t.integers());
  op.pre.eps = op.post.eps = t.take()[0];
  op.fixed = settings.fixed != 0;
  t.outputs_of(op);
  return op.run<false>(settings);
}

// x w norm1 range1 norm2 range2 batches config factors timing -> y, statistics range state of each norm
OPERATOR(mnasnet_quantized_depthwise_train) {
  TENSORS(29);
  DepthwiseForward op{t.shape(), t.take(), t.take(), t.norm()};
  op.pre_point = Point(t.take());
  op.post = t.norm();
  op.post_point = Point(t.take());
  const float* batches = t.take();
  const Settings settings = settings_of(t.integers());
  const float *factors = t.take(), *timing = t.take();
  op.pre.train(factors);
  op.post.train(factors);
  op.pre_point.train(true, batches, timing, &op.pre.fixed);
  op.post_point.train(true, batches, timing, &op.post.fixed);
  op.out = t.shape();
  op.y = t.take();
  t.outputs_of(op.pre);
  t.outputs_of(op.pre_point);
  t.outputs_of(op.post);
  t.outputs_of(op.post_point);
  return op.run<true>(settings);
}

// x w norm1 range1 norm2 range2 config factors -> y state1 state2
OPERATOR(mnasnet_quantized_depthwise_infer) {
  TENSORS(17);
  DepthwiseForward op{t.shape(), t.take(), t.take(), t.norm()};
  op.pre_point = Point(t.take());
  op.post = t.norm();
  op.post_point = Point(t.take());
  const Settings settings = settings_of(t.integers());
  op.pre.eps = op.post.eps = t.take()[0];
  op.out = t.shape();
  op.y = t.take();
  op.pre_point.state = t.take();
  op.post_point.state = t.take();
  return op.run<true>(settings);
}

// x w dy norm1 state1 norm2 state2 config factors -> dx dw dgamma1 dbeta1 dgamma2 dbeta2
OPERATOR(mnasnet_quantized_depthwise_backward) {
  TENSORS(21);
  DepthwiseBackward op{t.shape(), t.take(), t.take(), t.shape(), t.take(), t.norm()};
  const float* pre_state = t.take();
  op.post = t.norm();
  const float* state = t.take();
  const Settings settings = settings_of(t.integers());
  if (settings.pre) op.pre_quantizer = Quantizer(pre_state);
  op.post_quantizer = Quantizer(state);
  op.fixed = state[3] != 0;
  op.pre.eps = op.post.eps = t.take()[0];
  t.outputs_of(op);
  return op.run<true>(settings);
}

namespace {

// What the operators below share, behind x and its summand if it has one: the range and all that follows.
int train_point(Tensors& t, PointForward op) {
  Point point(t.take());
  const float* batches = t.take();
  const bool observes = t.integers()[0] != 0;
  point.train(observes, batches, t.take(), nullptr);
  op.y = t.take();
  t.outputs_of(point);
  return op.run(point);
}

int infer_point(Tensors& t, PointForward op) {
  Point point(t.take());
  op.y = t.take();
  point.state = t.take();
  return op.run(point);
}

int point_gradient(Tensors& t, PointBackward op) {
  const Quantizer quantize(t.take());
  op.dx = t.take();
  return op.run(quantize);
}

}  // namespace

// x range batches config {observes} timing -> y range state
OPERATOR(mnasnet_point_train) {
  TENSORS(8);
  return train_point(t, {t.size(), t.take()});
}

// x range -> y state
OPERATOR(mnasnet_point_infer) {
  TENSORS(4);
  return infer_point(t, {t.size(), t.take()});
}

// x dy state -> dx
OPERATOR(mnasnet_point_backward) {
  TENSORS(4);
  return point_gradient(t, {t.size(), t.take(), nullptr, t.take()});
}

// x summand range batches config {observes} timing -> y range state, of the sum
OPERATOR(mnasnet_point_add_train) {
  TENSORS(9);
  return train_point(t, {t.size(), t.take(), t.take()});
}

// x summand range -> y state
OPERATOR(mnasnet_point_add_infer) {
  TENSORS(5);
  return infer_point(t, {t.size(), t.take(), t.take()});
}

// x summand dy state -> dx, which is the summand's gradient too
OPERATOR(mnasnet_point_add_backward) {
  TENSORS(5);
  return point_gradient(t, {t.size(), t.take(), t.take(), t.take()});
}

// w, output channels first -> y
OPERATOR(mnasnet_quantize_weight) {
  TENSORS(2);
  const int64_t channels = t.length(0);
  return WeightPoint{127, channels, t.size() / channels, t.take(), t.take()}.run();
}

// the same with 7 bits
OPERATOR(mnasnet_quantize_weight_7) {
  TENSORS(2);
  const int64_t channels = t.length(0);
  return WeightPoint{64, channels, t.size() / channels, t.take(), t.take()}.run();
}

// x -> y (N, C, 1, 1)
OPERATOR(mnasnet_pool) {
  TENSORS(2);
  return run_planes(Pool{t.shape(), t.take(), t.take()});
}

// x (for its shape) dy -> dx
OPERATOR(mnasnet_spread) {
  TENSORS(3);
  const Shape shape = t.shape();
  t.take();
  return run_planes(Spread{shape, t.take(), t.take()});
}

// x gates (N, C, 1, 1) -> y
OPERATOR(mnasnet_scale) {
  TENSORS(3);
  return run_planes(Scale{t.shape(), t.take(), t.take(), t.take()});
}

// x gates dy -> dx dgates
OPERATOR(mnasnet_scale_backward) {
  TENSORS(5);
  return run_planes(ScaleBackward{t.shape(), t.take(), t.take(), t.take(), t.take(), t.take()});
}
