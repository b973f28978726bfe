// MindSpore's interface of ahead-of-time operators: inputs, then outputs.
#pragma once

#include "points.h"

#define OPERATOR(name) \
  extern "C" int name(int count, void** params, int* ranks, int64_t** shapes, const char**, void*, void*)

// Refuses a wrong number of tensors. (Braces of an initializer are evaluated in order, so tensors are taken in them.)
#define TENSORS(number)          \
  if (count != number) return 1; \
  Tensors t(params, ranks, shapes)

namespace {

// An operator's tensors, one after the other.
class Tensors {
 public:
  Tensors(void** params, int* ranks, int64_t** shapes) : params_(params), ranks_(ranks), shapes_(shapes) {}

  // Of the next tensor.
  Shape shape() const { return shape_of(shapes_[next_]); }
  int64_t length(int axis) const { return shapes_[next_][axis]; }
  int64_t size() const {
    int64_t product = 1;
    for (int axis = 0; axis < ranks_[next_]; ++axis) product *= shapes_[next_][axis];
    return product;
  }

  float* take() { return static_cast<float*>(params_[next_++]); }
  const int32_t* integers() { return static_cast<const int32_t*>(params_[next_++]); }
  Norm norm() { return Norm{take(), take(), take(), take()}; }

  void outputs_of(Norm& norm) {
    norm.mean = take();
    norm.variance = take();
    norm.next_mean = take();
    norm.next_variance = take();
  }
  void outputs_of(Point& point) {
    point.next_range = take();
    point.state = take();
  }
  void outputs_of(NormBackward& op) {
    op.dx = take();
    op.dgamma = take();
    op.dbeta = take();
  }
  template <class Operator>
  void outputs_of(Operator& depthwise_backward) {
    for (float*& output : depthwise_backward.outputs) output = take();
  }

 private:
  void** params_;
  int* ranks_;
  int64_t** shapes_;
  int next_ = 0;
};

}  // namespace
