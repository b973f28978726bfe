// Depthwise convolution of one plane, its gradients, and how planes lie in memory for it.
//
// A plane is copied with its padding into rows of one pitch. Stride 2 splits it into four phases (even and odd rows
// and columns), in which every tap is again a constant offset, so the inner loops are the same for all cases:
// contiguous vectors, no branches.
#pragma once

#include <cstring>

#include "planes.h"

namespace {

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Rows or columns of zeros before a plane of ``size``: TensorFlow's SAME, or half the kernel.
inline int64_t padding_before(int64_t size, int kernel, int stride, bool same) {
  if (!same) return kernel / 2;
  return std::max<int64_t>(((size - 1) / stride) * stride + kernel - size, 0) / 2;
}

template <int K, int S>
struct Depthwise {
  static constexpr int kPhases = S * S, kReach = (K - 1) / S;
  static constexpr int kBlock = 4 * kLanes;
  Shape in, out;
  int64_t above, left;  // padding
  int64_t pitch, rows, length, phase_size, margin, flat_size;

  Depthwise(Shape in_, Shape out_, bool same)
      : in(in_), out(out_), above(padding_before(in.height, K, S, same)), left(padding_before(in.width, K, S, same)) {
    pitch = out.width + kReach;
    rows = out.height + kReach;
    length = (out.height - 1) * pitch + out.width;
    phase_size = round_up(rows * pitch + kReach * (pitch + 1), kBlock) + kBlock;
    margin = round_up(kReach * (pitch + 1), kLanes);
    flat_size = margin + round_up(rows * pitch, kBlock) + kBlock;
  }

  static constexpr int phase_of(int ky, int kx) { return (ky % S) * S + kx % S; }
  int64_t offset_of(int ky, int kx) const { return (ky / S) * pitch + kx / S; }

  // Rows are copied in whole vectors, in order: what is behind a row, up to kLanes - 1 floats, is read and written
  // too, as zeros where ``Zeros`` says so, and then overwritten by the next row.
  template <bool Zeros>
  static void copy_rows(const float* from, int64_t from_pitch, float* to, int64_t to_pitch, int64_t count,
                        int64_t width) {
    const int64_t whole = Zeros ? width - width % kLanes : width;
    const Vec keep = first_lanes(width % kLanes);
    for (int64_t y = 0; y < count; ++y, from += from_pitch, to += to_pitch) {
      int64_t i = 0;
      for (; i < whole; i += kLanes) store(to + i, load(from + i));
      if (i < width) store(to + i, keep_lanes(load(from + i), keep));
    }
  }

  // Only the interior is written: phases are zero where the padding is, and stay so. ``x`` is followed by kLanes floats.
  void copy_in(const float* x, float* phases) const {
    if (S == 1) return copy_rows<true>(x, in.width, phases + above * pitch + left, pitch, in.height, in.width);
    for (int64_t y = 0; y < in.height; ++y) {
      const int64_t py = y + above, row = py / S;
      if (row >= rows) break;
      const float* src = x + y * in.width;
      for (int b = 0; b < S; ++b) {
        const int64_t first = ((b - left) % S + S) % S;            // first input column of this phase
        float* dst = phases + ((py % S) * S + b) * phase_size + row * pitch + (first + left) / S;
        const int64_t room = pitch - (first + left) / S;
        const int64_t n = std::min(room, (in.width - first + S - 1) / S);
        for (int64_t i = 0; i < n; ++i) dst[i] = src[first + i * S];
      }
    }
  }

  // Gradients of the phases back to the plane, which is followed by kLanes floats; positions that no output saw get
  // zero.
  void copy_back(const float* phases, float* dx) const {
    if (S == 1) return copy_rows<false>(phases + above * pitch + left, pitch, dx, in.width, in.height, in.width);
    for (int64_t y = 0; y < in.height; ++y) {
      const int64_t py = y + above, row = py / S;
      float* dst = dx + y * in.width;
      if (row >= rows) {
        std::memset(dst, 0, in.width * sizeof(float));
        continue;
      }
      for (int b = 0; b < S; ++b) {
        const int64_t first = ((b - left) % S + S) % S;
        const float* src = phases + ((py % S) * S + b) * phase_size + row * pitch + (first + left) / S;
        const int64_t room = pitch - (first + left) / S, n = (in.width - first + S - 1) / S;
        for (int64_t i = 0; i < std::min(n, room); ++i) dst[first + i * S] = src[i];
        for (int64_t i = std::max<int64_t>(room, 0); i < n; ++i) dst[first + i * S] = 0;
      }
    }
  }

  // Inlined it is up to 1.4 times slower (gcc 12, kernel 5).
  __attribute__((noinline)) void forward(const float* phases, const float* w, float* flat) const {
    for (int64_t i = 0; i < length; i += kBlock) {
      Vec a0 = {}, a1 = {}, a2 = {}, a3 = {};
#pragma GCC unroll 7
      for (int ky = 0; ky < K; ++ky)
#pragma GCC unroll 7
        for (int kx = 0; kx < K; ++kx) {
          const float* p = phases + phase_of(ky, kx) * phase_size + offset_of(ky, kx) + i;
          const float t = w[ky * K + kx];
          a0 += load(p) * t;
          a1 += load(p + kLanes) * t;
          a2 += load(p + 2 * kLanes) * t;
          a3 += load(p + 3 * kLanes) * t;
        }
      float* q = flat + i;
      store(q, a0);
      store(q + kLanes, a1);
      store(q + 2 * kLanes, a2);
      store(q + 3 * kLanes, a3);
    }
  }

  // flat: output gradients, zero before it (margin), in the gaps between rows, and behind it.
  void backward_input(const float* flat, const float* w, float* phases) const {
    for (int phase = 0; phase < kPhases; ++phase)
      for (int64_t i = 0; i < rows * pitch; i += kBlock) {
        Vec a0 = {}, a1 = {}, a2 = {}, a3 = {};
#pragma GCC unroll 7
        for (int ky = 0; ky < K; ++ky)
#pragma GCC unroll 7
          for (int kx = 0; kx < K; ++kx) {
            if (phase_of(ky, kx) != phase) continue;
            const float* p = flat - offset_of(ky, kx) + i;
            const float t = w[ky * K + kx];
            a0 += load(p) * t;
            a1 += load(p + kLanes) * t;
            a2 += load(p + 2 * kLanes) * t;
            a3 += load(p + 3 * kLanes) * t;
          }
        float* q = phases + phase * phase_size + i;
        store(q, a0);
        store(q + kLanes, a1);
        store(q + 2 * kLanes, a2);
        store(q + 3 * kLanes, a3);
      }
  }

  void backward_weight(const float* phases, const float* flat, double* dw) const {
    for (int ky = 0; ky < K; ++ky) {
      Vec acc[K] = {};
      const float* base[K];
      for (int kx = 0; kx < K; ++kx) base[kx] = phases + phase_of(ky, kx) * phase_size + offset_of(ky, kx);
      for (int64_t i = 0; i < length; i += kLanes) {
        const Vec g = load(flat + i);
#pragma GCC unroll 7
        for (int kx = 0; kx < K; ++kx) acc[kx] += g * load(base[kx] + i);
      }
      for (int kx = 0; kx < K; ++kx) dw[ky * K + kx] += sum_lanes(acc[kx]);
    }
  }

  // Of outputs: from rows of one pitch to a plane, which is followed by kLanes floats, and back.
  void rows_out(const float* flat, float* y) const {
    copy_rows<false>(flat, pitch, y, out.width, out.height, out.width);
  }
  void rows_in(const float* y, float* flat) const {
    copy_rows<true>(y, out.width, flat, pitch, out.height, out.width);
  }
};

}  // namespace
