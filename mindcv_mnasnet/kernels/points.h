// Quantization of a tensor as it is, or of the sum of two, or of the weights of a layer.
#pragma once

#include <vector>

#include "norms.h"

namespace {

constexpr int64_t kChunk = 16384;  // floats that a thread takes at a time

template <class Work>
void for_chunks(int64_t size, const Work& work) {  // work(number, begin, length)
  for_channels((size + kChunk - 1) / kChunk, [&](int64_t i) { work(i, i * kChunk, std::min(kChunk, size - i * kChunk)); });
}

struct PointForward {
  int64_t size;
  const float *x, *add = nullptr;  // add: a summand, or null
  float* y = nullptr;

  int run(const Point& point) const {
    std::vector<Extremes> seen((size + kChunk - 1) / kChunk);
    if (point.observes || add != nullptr) {
      for_chunks(size, [&](int64_t number, int64_t at, int64_t length) {
        Extremes ends;
        if (add != nullptr) apply_add(x + at, add + at, y + at, length, {});
        if (point.observes) ends.see((add != nullptr ? y : x) + at, length);
        seen[number] = ends;
      });
    }
    const Quantizer quantize = point.settle(all_of(seen));
    const float* from = add != nullptr ? y : x;
    for_chunks(size, [&](int64_t, int64_t at, int64_t length) {
      apply_quantized<false>(from + at, y + at, length, {}, quantize);
    });
    return 0;
  }
};

struct PointBackward {
  int64_t size;
  const float *x, *add, *dy;
  float* dx = nullptr;  // of x, and of the summand too

  int run(const Quantizer& quantize) const {
    for_chunks(size, [&](int64_t, int64_t at, int64_t length) {
      const float *from = x + at, *other = add == nullptr ? nullptr : add + at, *given = dy + at;
      sweep(length, [=, to = dx + at, quantizer = quantize](int64_t i, auto kind) {
        using T = decltype(kind);
        T v = get<T>(from + i);
        if (other != nullptr) v += get<T>(other + i);
        put(to + i, quantizer.pass(v, get<T>(given + i)));
      });
    });
    return 0;
  }
};

// The nearest of 2 levels + 1 values per output channel, evenly from -max|w| to max|w|.
struct WeightPoint {
  float levels;  // steps from zero to the largest weight
  int64_t channels, per_channel;
  const float* w;
  float* y;

  int run() const {
    for_channels(channels, [this](int64_t c) {
      const float* from = w + c * per_channel;
      float* to = y + c * per_channel;
      Extremes ends;
      ends.see(from, per_channel);
      const float scale = std::max(std::max(ends.most, -ends.least), kTiny) / levels;
      for (int64_t i = 0; i < per_channel; ++i) to[i] = std::nearbyint(from[i] / scale) * scale;
    });
    return 0;
  }
};

}  // namespace
