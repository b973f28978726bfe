// The operators as MindSpore calls them: batch norm, ReLU and depthwise convolution of float32 NCHW tensors on CPUs.
#include "depthwise.h"
#include "gates.h"
#include "norms.h"

// MindSpore's interface of ahead-of-time operators: inputs, then outputs.
#define OPERATOR(name) \
  extern "C" int name(int count, void** params, int*, int64_t** shapes, const char**, void*, void*)

extern "C" void mnasnet_set_threads(int threads) { g_threads = std::max(1, threads); }

// x w gamma1 beta1 gamma2 beta2 config eps -> y mean1 variance1 mean2 variance2
OPERATOR(mnasnet_depthwise_train) {
  if (count != 13) return 1;
  auto p = reinterpret_cast<float**>(params);
  float* order[] = {p[0], p[1], p[2], p[3], p[9], p[10], p[4], p[5], p[11], p[12], p[8]};
  const RunForward run{shape_of(shapes[0]), shape_of(shapes[8]), order, p[7][0], true};
  return dispatch<Forward>(config_of(p[6]), run);
}

// x w gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 config eps -> y
OPERATOR(mnasnet_depthwise_infer) {
  if (count != 13) return 1;
  auto p = reinterpret_cast<float**>(params);
  float* order[] = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[12]};
  const RunForward run{shape_of(shapes[0]), shape_of(shapes[12]), order, p[11][0], false};
  return dispatch<Forward>(config_of(p[10]), run);
}

// x w dy gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 config eps -> dx dw dgamma1 dbeta1 dgamma2 dbeta2
OPERATOR(mnasnet_depthwise_backward) {
  if (count != 19) return 1;
  auto p = reinterpret_cast<float**>(params);
  const Config config = config_of(p[11]);
  const RunBackward run{shape_of(shapes[0]), shape_of(shapes[2]), p, p[12][0], config.fixed != 0};
  return dispatch<Backward>(config, run);
}

// x add gamma beta config {relu, add, fixed} eps -> y mean variance
OPERATOR(mnasnet_norm_train) {
  if (count != 9) return 1;
  auto p = reinterpret_cast<float**>(params);
  const auto config = static_cast<const int32_t*>(params[4]);
  const Norm norm{p[2], p[3], p[7], p[8]};
  const float* add = config[1] ? p[1] : nullptr;
  return norm_forward(shape_of(shapes[0]), p[0], add, p[6], norm, p[5][0], true, config[0]);
}

// x add gamma beta mean variance config {relu, add, fixed} eps -> y
OPERATOR(mnasnet_norm_infer) {
  if (count != 9) return 1;
  auto p = reinterpret_cast<float**>(params);
  const auto config = static_cast<const int32_t*>(params[6]);
  const Norm norm{p[2], p[3], p[4], p[5]};
  const float* add = config[1] ? p[1] : nullptr;
  return norm_forward(shape_of(shapes[0]), p[0], add, p[8], norm, p[7][0], false, config[0]);
}

// The same under names of their own: MindSpore takes operators of one name for one, with the gradient of the first.
OPERATOR(mnasnet_norm_add_train) {
  return mnasnet_norm_train(count, params, nullptr, shapes, nullptr, nullptr, nullptr);
}

OPERATOR(mnasnet_norm_add_infer) {
  return mnasnet_norm_infer(count, params, nullptr, shapes, nullptr, nullptr, nullptr);
}

// x dy gamma beta mean variance config eps -> dx dgamma dbeta
OPERATOR(mnasnet_norm_backward) {
  if (count != 11) return 1;
  auto p = reinterpret_cast<float**>(params);
  const Norm norm{p[2], p[3], p[4], p[5]};
  const Shape s = shape_of(shapes[0]);
  const auto config = static_cast<const int32_t*>(params[6]);
  if (config[0]) return run_norm(NormBackward<true>{s, p[0], p[1], norm, p[8], p[9], p[10], p[7][0], config[2] != 0});
  return run_norm(NormBackward<false>{s, p[0], p[1], norm, p[8], p[9], p[10], p[7][0], config[2] != 0});
}

// x -> y (N, C, 1, 1)
OPERATOR(mnasnet_pool) {
  if (count != 2) return 1;
  auto p = reinterpret_cast<float**>(params);
  return run_planes(Pool{shape_of(shapes[0]), p[0], p[1]});
}

// x (for its shape) dy -> dx
OPERATOR(mnasnet_spread) {
  if (count != 3) return 1;
  auto p = reinterpret_cast<float**>(params);
  return run_planes(Spread{shape_of(shapes[0]), p[1], p[2]});
}

// x gates (N, C, 1, 1) -> y
OPERATOR(mnasnet_scale) {
  if (count != 3) return 1;
  auto p = reinterpret_cast<float**>(params);
  return run_planes(Scale{shape_of(shapes[0]), p[0], p[1], p[2]});
}

// x gates dy -> dx dgates
OPERATOR(mnasnet_scale_backward) {
  if (count != 5) return 1;
  auto p = reinterpret_cast<float**>(params);
  return run_planes(ScaleBackward{shape_of(shapes[0]), p[0], p[1], p[2], p[3], p[4]});
}
