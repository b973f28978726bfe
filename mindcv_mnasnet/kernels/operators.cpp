// Depthwise convolution, batch norm and ReLU of float32 NCHW tensors on CPUs, one channel after the other.
//
// A depthwise MBConv half (batch norm, ReLU, depthwise convolution, batch norm, ReLU) never mixes channels, so all of
// it is done while a channel's planes are in cache, forward and backward; the convolution is computed again in the
// backward pass instead of being stored.
//
// A plane is copied with its padding into rows of one pitch. Stride 2 splits it into four phases (even and odd rows
// and columns), in which every tap is again a constant offset, so the inner loops are the same for all cases:
// contiguous vectors, no branches. Reductions run in a fixed order whatever the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int kLanes = 16;
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

int g_threads = 1;

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

inline float sum_lanes(Vec v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

template <class Work>
void for_channels(int64_t channels, Work work) {
  const int threads = static_cast<int>(std::min<int64_t>(g_threads, channels));
  std::atomic<int64_t> next{0};
  auto run = [&] {
    typename Work::Scratch scratch(work);
    for (int64_t c; (c = next.fetch_add(1)) < channels;) work(c, scratch);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run);
  run();
  for (auto& thread : others) thread.join();
}

// Mean and variance gathered plane by plane (Chan's update), each plane in two sweeps while it is in cache.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void add(const float* x, int64_t n) {
    Vec acc = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) acc += load(x + i);
    double total = sum_lanes(acc);
    for (int64_t j = i; j < n; ++j) total += x[j];
    const double plane_mean = total / n;
    const float m = static_cast<float>(plane_mean);
    Vec acc2 = {}, acc1 = {};
    for (i = 0; i + kLanes <= n; i += kLanes) {
      const Vec d = load(x + i) - m;
      acc1 += d;
      acc2 += d * d;
    }
    double rest1 = sum_lanes(acc1), rest2 = sum_lanes(acc2);
    for (; i < n; ++i) {
      const float d = x[i] - m;
      rest1 += d;
      rest2 += d * d;
    }
    const double plane_squares = rest2 - rest1 * rest1 / n;
    const double exact_mean = m + rest1 / n, delta = exact_mean - mean, all = count + n;
    mean += delta * n / all;
    squares += plane_squares + delta * delta * count * n / all;
    count = all;
  }
};

struct Affine {
  float scale, shift;
};

inline Affine normaliser(double mean, double variance, float gamma, float beta, float eps) {
  const double scale = gamma / std::sqrt(variance + eps);
  return {static_cast<float>(scale), static_cast<float>(beta - mean * scale)};
}

// y = x * scale + shift, and ReLU or a summand if asked for; y may be x.
template <bool Relu, bool Add>
void apply(const float* x, const float* add, float* y, int64_t n, Affine f) {
  for (int64_t i = 0; i < n; ++i) {
    float v = x[i] * f.scale + f.shift;
    if (Add) v += add[i];
    y[i] = Relu ? (v > 0 ? v : 0) : v;
  }
}

struct Shape {
  int64_t batch, channels, height, width;
  int64_t plane() const { return height * width; }
  int64_t offset(int64_t n, int64_t c) const { return (n * channels + c) * plane(); }
};

inline Shape shape_of(const int64_t* s) { return {s[0], s[1], s[2], s[3]}; }

template <int K, int S>
struct Depthwise {
  static constexpr int kPhases = S * S, kReach = (K - 1) / S;
  static constexpr int kBlock = 4 * kLanes;
  Shape in, out;
  int pad;
  int64_t pitch, rows, length, phase_size, margin, flat_size;

  Depthwise(Shape in_, Shape out_, int pad_) : in(in_), out(out_), pad(pad_) {
    pitch = out.width + kReach;
    rows = out.height + kReach;
    length = (out.height - 1) * pitch + out.width;
    phase_size = round_up(rows * pitch + kReach * (pitch + 1), kBlock) + kBlock;
    margin = round_up(kReach * (pitch + 1), kLanes);
    flat_size = margin + round_up(rows * pitch, kBlock) + kBlock;
  }

  static constexpr int phase_of(int ky, int kx) { return (ky % S) * S + kx % S; }
  int64_t offset_of(int ky, int kx) const { return (ky / S) * pitch + kx / S; }

  // Only the interior is written: phases are zero where the padding is, and stay so.
  template <bool Normalise>
  void copy_in(const float* x, float* phases, Affine f) const {
    for (int64_t y = 0; y < in.height; ++y) {
      const int64_t py = y + pad, row = py / S;
      if (row >= rows) break;
      const float* src = x + y * in.width;
      for (int b = 0; b < S; ++b) {
        const int64_t first = ((b - pad) % S + S) % S;            // first input column of this phase
        float* dst = phases + ((py % S) * S + b) * phase_size + row * pitch + (first + pad) / S;
        const int64_t room = pitch - (first + pad) / S;
        const int64_t n = std::min(room, (in.width - first + S - 1) / S);
        for (int64_t i = 0; i < n; ++i) {
          float v = src[first + i * S];
          if (Normalise) {
            v = v * f.scale + f.shift;
            v = v > 0 ? v : 0;
          }
          dst[i] = v;
        }
      }
    }
  }

  // Gradients of the phases back to the plane; positions that no output saw get zero.
  void copy_back(const float* phases, float* dx) const {
    for (int64_t y = 0; y < in.height; ++y) {
      const int64_t py = y + pad, row = py / S;
      float* dst = dx + y * in.width;
      if (row >= rows) {
        std::memset(dst, 0, in.width * sizeof(float));
        continue;
      }
      for (int b = 0; b < S; ++b) {
        const int64_t first = ((b - pad) % S + S) % S;
        const float* src = phases + ((py % S) * S + b) * phase_size + row * pitch + (first + pad) / S;
        const int64_t room = pitch - (first + pad) / S, n = (in.width - first + S - 1) / S;
        for (int64_t i = 0; i < std::min(n, room); ++i) dst[first + i * S] = src[i];
        for (int64_t i = std::max<int64_t>(room, 0); i < n; ++i) dst[first + i * S] = 0;
      }
    }
  }

  void forward(const float* phases, const float* w, float* flat) const {
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

  void rows_out(const float* flat, float* y) const {
    for (int64_t r = 0; r < out.height; ++r)
      std::memcpy(y + r * out.width, flat + r * pitch, out.width * sizeof(float));
  }
};

template <int K, int S>
struct Buffers {
  std::vector<float> phases, gradients, flat, planes;
  template <class Work>
  explicit Buffers(const Work& work)
      : phases(Depthwise<K, S>::kPhases * work.op.phase_size, 0.f),
        gradients(work.backward ? Depthwise<K, S>::kPhases * work.op.phase_size : 0, 0.f),
        flat(work.op.flat_size, 0.f),
        planes(work.backward ? work.op.out.batch * work.op.out.plane() : 0) {}
};

struct Norm {  // one batch norm: parameters, statistics of the batch (or given ones)
  const float *gamma, *beta;
  float *mean, *variance;
};

// y = act(bn2(depthwise(act(bn1(x))))), each batch norm with its ReLU or neither of the two.
template <int K, int S, bool Pre, bool Post>
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
        for (int64_t n = 0; n < op.in.batch; ++n) m.add(x + op.in.offset(n, c), plane);
        pre.mean[c] = static_cast<float>(m.mean);
        pre.variance[c] = static_cast<float>(m.squares / m.count);
      }
      first = normaliser(pre.mean[c], pre.variance[c], pre.gamma[c], pre.beta[c], eps);
    }
    Moments m;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      float* to = y + op.out.offset(n, c);
      op.template copy_in<Pre>(x + op.in.offset(n, c), s.phases.data(), first);
      op.forward(s.phases.data(), w + c * K * K, s.flat.data());
      op.rows_out(s.flat.data(), to);
      if (Post && training) m.add(to, out_plane);
    }
    if (!Post) return;
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

// Sums that the gradient of a batch norm needs: of g and of g * xhat.
struct NormSums {
  double g = 0, gx = 0;
};

// Masks the gradient g (in place) where the normalised value is not above zero, and adds up.
template <bool Relu>
void mask_and_sum(const float* x, const float* g_in, float* g, int64_t n, Affine f, float mean, float inverse,
                  NormSums& sums) {
  Vec acc_g = {}, acc_gx = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    Vec d = load(g_in + i);
    if (Relu) d = (v * f.scale + f.shift) > 0 ? d : Vec{};
    store(g + i, d);
    acc_g += d;
    acc_gx += d * ((v - mean) * inverse);
  }
  double total = sum_lanes(acc_g), total_x = sum_lanes(acc_gx);
  for (; i < n; ++i) {
    const float v = x[i];
    const float d = (!Relu || v * f.scale + f.shift > 0) ? g_in[i] : 0;
    g[i] = d;
    total += d;
    total_x += d * ((v - mean) * inverse);
  }
  sums.g += total;
  sums.gx += total_x;
}

// The gradient through a batch norm: scale * (g - mean(g) - xhat * mean(g xhat)).
inline void norm_gradient(const float* x, const float* g, float* dx, int64_t n, float scale, float mean, float inverse,
                          const NormSums& sums, double count) {
  const float mean_g = static_cast<float>(sums.g / count), mean_gx = static_cast<float>(sums.gx / count);
  for (int64_t i = 0; i < n; ++i) dx[i] = scale * (g[i] - mean_g - (x[i] - mean) * inverse * mean_gx);
}

inline float inverse_deviation(float variance, float eps) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance) + eps));
}

template <int K, int S, bool Pre, bool Post>
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
    const double count = static_cast<double>(op.in.batch) * plane, out_count = static_cast<double>(op.in.batch) * out_plane;
    Affine first{1, 0}, second{1, 0};
    float inverse1 = 1, inverse2 = 1;
    if (Pre) {
      first = normaliser(pre.mean[c], pre.variance[c], pre.gamma[c], pre.beta[c], eps);
      inverse1 = inverse_deviation(pre.variance[c], eps);
    }
    NormSums sums2;
    float* flat = s.flat.data() + op.margin;
    if (Post) {
      second = normaliser(post.mean[c], post.variance[c], post.gamma[c], post.beta[c], eps);
      inverse2 = inverse_deviation(post.variance[c], eps);
      float* g = s.gradients.data();  // a plane of masked gradients: not needed here, only its sums
      for (int64_t n = 0; n < op.in.batch; ++n) {
        float* z = s.planes.data() + n * out_plane;
        op.template copy_in<Pre>(x + op.in.offset(n, c), s.phases.data(), first);
        op.forward(s.phases.data(), w + c * K * K, flat);
        op.rows_out(flat, z);
        mask_and_sum<true>(z, dy + op.out.offset(n, c), g, out_plane, second, post.mean[c], inverse2, sums2);
      }
      dgamma2[c] = static_cast<float>(sums2.gx);
      dbeta2[c] = static_cast<float>(sums2.g);
    }
    if (fixed) sums2 = {};
    std::fill(s.flat.begin(), s.flat.end(), 0.f);
    const float mean_g = static_cast<float>(sums2.g / out_count), mean_gx = static_cast<float>(sums2.gx / out_count);
    double weights[K * K] = {};
    NormSums sums1;
    for (int64_t n = 0; n < op.in.batch; ++n) {
      const float* g = dy + op.out.offset(n, c);
      const float* z = s.planes.data() + n * out_plane;
      for (int64_t r = 0; r < op.out.height; ++r) {
        float* to = flat + r * op.pitch;
        for (int64_t i = 0; i < op.out.width; ++i) {
          const int64_t at = r * op.out.width + i;
          if (Post) {
            const float d = z[at] * second.scale + second.shift > 0 ? g[at] : 0;
            to[i] = second.scale * (d - mean_g - (z[at] - post.mean[c]) * inverse2 * mean_gx);
          } else {
            to[i] = g[at];
          }
        }
      }
      op.template copy_in<Pre>(x + op.in.offset(n, c), s.phases.data(), first);
      op.backward_weight(s.phases.data(), flat, weights);
      op.backward_input(flat, w + c * K * K, s.gradients.data());
      float* to = dx + op.in.offset(n, c);
      op.copy_back(s.gradients.data(), to);
      if (Pre) mask_and_sum<true>(x + op.in.offset(n, c), to, to, plane, first, pre.mean[c], inverse1, sums1);
    }
    for (int i = 0; i < K * K; ++i) dw[c * K * K + i] = static_cast<float>(weights[i]);
    if (!Pre) return;
    dgamma1[c] = static_cast<float>(sums1.gx);
    dbeta1[c] = static_cast<float>(sums1.g);
    if (fixed) sums1 = {};
    for (int64_t n = 0; n < op.in.batch; ++n) {
      const int64_t at = op.in.offset(n, c);
      norm_gradient(x + at, dx + at, dx + at, plane, first.scale, pre.mean[c], inverse1, sums1, count);
    }
  }
};

struct None {
  template <class Work>
  explicit None(const Work&) {}
};

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

// Rows of pixels under each tap of a convolution, so that it becomes a 1 x 1 one: (N, C, H, W) -> (N, C k k, Ho, Wo).
struct Unfold {
  using Scratch = None;
  Shape in, out;
  int kernel, stride, pad;
  const float* x;
  float* y;

  void operator()(int64_t channel, Scratch&) const {
    const int64_t tap = channel % (kernel * kernel), source = channel / (kernel * kernel);
    const int64_t ky = tap / kernel, kx = tap % kernel;
    for (int64_t n = 0; n < in.batch; ++n) {
      const float* from = x + in.offset(n, source);
      float* to = y + out.offset(n, channel);
      const int64_t shift = kx - pad;  // columns first..last - 1 of the output see the picture
      const int64_t first = std::min(out.width, shift < 0 ? (-shift + stride - 1) / stride : 0);
      const int64_t last = std::max(first, std::min(out.width, (in.width - shift + stride - 1) / stride));
      for (int64_t r = 0; r < out.height; ++r, to += out.width) {
        const int64_t row = r * stride + ky - pad;
        if (row < 0 || row >= in.height) {
          std::fill(to, to + out.width, 0.f);
          continue;
        }
        const float* line = from + row * in.width + shift;
        std::fill(to, to + first, 0.f);
        if (stride == 2)
          for (int64_t i = first; i < last; ++i) to[i] = line[2 * i];
        else
          for (int64_t i = first; i < last; ++i) to[i] = line[stride * i];
        std::fill(to + last, to + out.width, 0.f);
      }
    }
  }
};

struct Fold {  // the gradient of Unfold
  using Scratch = None;
  Shape in, out;  // of the unfolded convolution: in (N, C, H, W), out (N, C k k, Ho, Wo)
  int kernel, stride, pad;
  const float* dy;
  float* dx;

  void operator()(int64_t channel, Scratch&) const {
    for (int64_t n = 0; n < in.batch; ++n) {
      float* to = dx + in.offset(n, channel);
      std::fill(to, to + in.plane(), 0.f);
      for (int64_t tap = 0; tap < kernel * kernel; ++tap) {
        const float* from = dy + out.offset(n, channel * kernel * kernel + tap);
        for (int64_t r = 0; r < out.height; ++r)
          for (int64_t i = 0; i < out.width; ++i) {
            const int64_t row = r * stride + tap / kernel - pad, column = i * stride + tap % kernel - pad;
            if (row >= 0 && row < in.height && column >= 0 && column < in.width)
              to[row * in.width + column] += from[r * out.width + i];
          }
      }
    }
  }
};

struct Config {  // of a depthwise operator: int32 {kernel, stride, pad, pre, post, fixed}
  int kernel, stride, pad, pre, post, fixed;  // fixed: the statistics are given ones and have no gradient
};

template <template <int, int, bool, bool> class Work, int K, int S, class Run>
int with_norms(const Config& c, Run run) {
  if (c.pre && c.post) return run.template operator()<Work<K, S, true, true>>(Depthwise<K, S>(run.in, run.out, c.pad));
  if (c.post) return run.template operator()<Work<K, S, false, true>>(Depthwise<K, S>(run.in, run.out, c.pad));
  if (!c.pre) return run.template operator()<Work<K, S, false, false>>(Depthwise<K, S>(run.in, run.out, c.pad));
  return 2;
}

template <template <int, int, bool, bool> class Work, class Run>
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
  return {c[0], c[1], c[2], c[3], c[4], c[5]};
}

struct RunForward {
  Shape in, out;
  float** p;  // x w gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 y
  float eps;
  bool training;
  template <class Work, class Op>
  int operator()(Op op) const {
    for_channels(in.channels, Work{op, p[0], p[1], p[10], {p[2], p[3], p[4], p[5]}, {p[6], p[7], p[8], p[9]}, eps, training});
    return 0;
  }
};

struct RunBackward {
  Shape in, out;
  float** p;  // x w dy gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 . . dx dw dgamma1 dbeta1 dgamma2 dbeta2
  float eps;
  bool fixed;
  template <class Work, class Op>
  int operator()(Op op) const {
    for_channels(in.channels, Work{op, p[0], p[1], p[2], {p[3], p[4], p[5], p[6]}, {p[7], p[8], p[9], p[10]},
                                   p[13], p[14], p[15], p[16], p[17], p[18], eps, fixed});
    return 0;
  }
};

}  // namespace

// MindSpore's interface of ahead-of-time operators: inputs, then outputs.
#define OPERATOR(name) \
  extern "C" int name(int count, void** params, int* ndims, int64_t** shapes, const char** dtypes, void*, void*)

extern "C" void mnasnet_set_threads(int threads) { g_threads = std::max(1, threads); }

// x w gamma1 beta1 gamma2 beta2 config eps -> y mean1 variance1 mean2 variance2
OPERATOR(mnasnet_depthwise_train) {
  if (count != 13) return 1;
  auto p = reinterpret_cast<float**>(params);
  float* order[] = {p[0], p[1], p[2], p[3], p[9], p[10], p[4], p[5], p[11], p[12], p[8]};
  return dispatch<Forward>(config_of(p[6]), RunForward{shape_of(shapes[0]), shape_of(shapes[8]), order, p[7][0], true});
}

// x w gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 config eps -> y
OPERATOR(mnasnet_depthwise_infer) {
  if (count != 13) return 1;
  auto p = reinterpret_cast<float**>(params);
  float* order[] = {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[12]};
  return dispatch<Forward>(config_of(p[10]), RunForward{shape_of(shapes[0]), shape_of(shapes[12]), order, p[11][0], false});
}

// x w dy gamma1 beta1 mean1 variance1 gamma2 beta2 mean2 variance2 config eps -> dx dw dgamma1 dbeta1 dgamma2 dbeta2
OPERATOR(mnasnet_depthwise_backward) {
  if (count != 19) return 1;
  auto p = reinterpret_cast<float**>(params);
  return dispatch<Backward>(config_of(p[11]), RunBackward{shape_of(shapes[0]), shape_of(shapes[2]), p, p[12][0], config_of(p[11]).fixed != 0});
}

namespace {

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

// x add gamma beta config {relu, add, fixed} eps -> y mean variance
OPERATOR(mnasnet_norm_train) {
  if (count != 9) return 1;
  auto p = reinterpret_cast<float**>(params);
  const auto config = static_cast<const int32_t*>(params[4]);
  return norm_forward(shape_of(shapes[0]), p[0], config[1] ? p[1] : nullptr, p[6], {p[2], p[3], p[7], p[8]}, p[5][0], true, config[0]);
}

// The same under a name of its own: MindSpore takes operators of one name for one and gives all the first one's gradient.
OPERATOR(mnasnet_norm_add_train) { return mnasnet_norm_train(count, params, ndims, shapes, dtypes, nullptr, nullptr); }

// x add gamma beta mean variance config {relu, add, fixed} eps -> y
OPERATOR(mnasnet_norm_infer) {
  if (count != 9) return 1;
  auto p = reinterpret_cast<float**>(params);
  const auto config = static_cast<const int32_t*>(params[6]);
  return norm_forward(shape_of(shapes[0]), p[0], config[1] ? p[1] : nullptr, p[8], {p[2], p[3], p[4], p[5]}, p[7][0], false, config[0]);
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

OPERATOR(mnasnet_norm_add_infer) { return mnasnet_norm_infer(count, params, ndims, shapes, dtypes, nullptr, nullptr); }

namespace {

// Squeeze-and-excitation around its two small layers: means of planes, and planes times gates.
struct Pool {
  using Scratch = None;
  Shape shape;
  const float* x;
  float* y;

  void operator()(int64_t plane, Scratch&) const {
    Moments m;
    m.add(x + plane * shape.plane(), shape.plane());
    y[plane] = static_cast<float>(m.mean);
  }
};

struct Spread {  // the gradient of Pool
  using Scratch = None;
  Shape shape;
  const float* dy;
  float* dx;

  void operator()(int64_t plane, Scratch&) const {
    std::fill_n(dx + plane * shape.plane(), shape.plane(), dy[plane] / static_cast<float>(shape.plane()));
  }
};

struct Scale {
  using Scratch = None;
  Shape shape;
  const float *x, *gates;
  float* y;

  void operator()(int64_t plane, Scratch&) const {
    const int64_t at = plane * shape.plane();
    apply<false, false>(x + at, nullptr, y + at, shape.plane(), {gates[plane], 0.f});
  }
};

struct ScaleBackward {
  using Scratch = None;
  Shape shape;
  const float *x, *gates, *dy;
  float *dx, *dgates;

  void operator()(int64_t plane, Scratch&) const {
    const int64_t n = shape.plane(), at = plane * n;
    Vec acc = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const Vec g = load(dy + at + i);
      acc += g * load(x + at + i);
      store(dx + at + i, g * gates[plane]);
    }
    float total = sum_lanes(acc);
    for (; i < n; ++i) {
      total += dy[at + i] * x[at + i];
      dx[at + i] = dy[at + i] * gates[plane];
    }
    dgates[plane] = total;
  }
};

template <class Work>
int run_planes(Work work) {
  for_channels(work.shape.batch * work.shape.channels, work);
  return 0;
}

}  // namespace

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

// x config {kernel, stride, pad} -> y
OPERATOR(mnasnet_unfold) {
  if (count != 3) return 1;
  const auto c = static_cast<const int32_t*>(params[1]);
  const Unfold work{shape_of(shapes[0]), shape_of(shapes[2]), c[0], c[1], c[2], static_cast<float*>(params[0]), static_cast<float*>(params[2])};
  for_channels(work.out.channels, work);
  return 0;
}

// x (for its shape) dy config -> dx
OPERATOR(mnasnet_fold) {
  if (count != 4) return 1;
  const auto c = static_cast<const int32_t*>(params[2]);
  const Fold work{shape_of(shapes[0]), shape_of(shapes[1]), c[0], c[1], c[2], static_cast<float*>(params[1]), static_cast<float*>(params[3])};
  for_channels(work.in.channels, work);
  return 0;
}
