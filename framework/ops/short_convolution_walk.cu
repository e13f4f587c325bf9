#include "framework/ops/short_convolution.cuh"

namespace fulcrum::ops::cuda {
namespace {

// Backward in one pass over x and the gradient.
//
// A block walks over a strip of a class. At position q a thread forms dz(q) of its channels and,
// with dz of the three positions before, m(p) of p = q − reach, whose taps look ahead to q, q −
// dilation, …: with m(p) = Σ_j taps_j ⊙ dz(p + reach_j),
//   dx(p) = scale·(m − ⟨m, x·scale⟩ / d · x·scale) + gradient(p).
// Only ⟨m, x⟩ needs the whole block, once in kBatch steps. After the strip it walks on for three
// positions, whose dz the strip still needs.
//
// Rows of x·scale, dz and the gradient stay in registers for three steps, in slot (step % 3). Three
// steps make a round; a round in the midst of a document, the strip and the batch asks nothing.

// What the blocks of a strip know in shared memory.
struct Shared {
  float* dots;   // [2, warps, kQuad]: sums of the warps, two rounds
  Known* known;  // of step −3 on
  bool* midst;   // of every round

  // Steps that are asked about: before, in and after a strip, and what fills the last round.
  __host__ __device__ static int steps(int most) { return most + 4 * kBefore; }
  __host__ __device__ static int rounds(int most) { return most / kBefore + 3; }
  static std::size_t bytes(int most, int threads) {
    return 2 * (threads / 32) * kQuad * sizeof(float) + steps(most) * sizeof(Known) + rounds(most);
  }

  __device__ Shared(unsigned char* memory, int most)
      : dots(reinterpret_cast<float*>(memory)),
        known(reinterpret_cast<Known*>(dots + 2 * (blockDim.x / 32) * kQuad)),
        midst(reinterpret_cast<bool*>(known + steps(most))) {}

  template <class T>
  __device__ void fill(const Convolution<T>& c, const Strip& strip, int most) const {
    for (int i = threadIdx.x; i < steps(most); i += blockDim.x) {
      known[i] = Known::of(c, strip.first + (i - kBefore) * c.dilation);
    }
    __syncthreads();
    for (int r = threadIdx.x; r < rounds(most); r += blockDim.x) {
      const int i = r * kBefore;
      // The next round's rows are there, this one's are the strip's, and three steps back too.
      bool all = r > 0 && i + kBefore <= strip.length && i + 2 * kBefore <= strip.available;
      for (int u = 0; u < kBefore && all; ++u) {
        all = (known[i + u + kBefore].seen & Known::kAll) == Known::kAll &&
              known[i + u].seen >> 4 == Known::kAll;
      }
      midst[r] = all;
    }
    __syncthreads();
  }
};

template <class T, int kBatch>
class Walk {
 public:
  static_assert(kBatch == 1 || kBatch == kBefore);

  __device__ Walk(const Convolution<T>& c, const T* gradient, T* dx, bool add, const Strip& strip,
                  const Shared& shared)
      : c_(c),
        shared_(shared),
        strip_(strip),
        channel_(threadIdx.x * kQuad),
        owns_(channel_ < c.d),
        add_(add),
        stride_(static_cast<std::int64_t>(c.dilation) * c.d),
        share_(1.0f / static_cast<float>(c.d)) {
    const std::int64_t at = static_cast<std::int64_t>(strip.first) * c.d + (owns_ ? channel_ : 0);
    x_ = c.x + at;
    gradient_ = gradient + at;
    out_ = dx == nullptr ? nullptr : dx + at - kBefore * stride_;
#pragma unroll
    for (int j = 0; j < kUsualTaps; ++j) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        tap_[j][k] = owns_ ? c.tap(channel_ + k, j) : 0.0f;
        sums_[j][k] = 0.0f;
      }
    }
  }

  __device__ void run() {
    look_back();
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      float zero[kQuad] = {};
      next_x_[u] = next_g_[u] = ended_[u] = Quad<T>::of(zero);
      if (u < strip_.available) prefetch(u);
    }
    const int rounds = (strip_.length + 2 * kBefore - 1) / kBefore;
    for (int r = 0; r < rounds; ++r) {
      // In a loop of its own, whose registers need not suit the other.
      for (; shared_.midst[r]; ++r) round<true>(r * kBefore);
      if (r < rounds) round<false>(r * kBefore);
    }
  }

  __device__ void store_sums(float* partial) const {
    if (!owns_) return;
#pragma unroll
    for (int j = 0; j < kUsualTaps; ++j) {
      Quad<float>::of(sums_[j]).store(
          partial + (static_cast<std::int64_t>(blockIdx.x) * kUsualTaps + j) * c_.d + channel_);
    }
  }

 private:
  // dx of a position is plain − along · scale · x, x times its scale.
  struct Finished {
    float plain[kQuad];
    float x[kQuad];
    float scale;
    float dot;  // this thread's part of ⟨m, x⟩
  };

  // Asks for the rows of step u of the round that begins at x_ and gradient_.
  __device__ void prefetch(int u) {
    next_x_[u] = Quad<T>::load(x_ + u * stride_);
    next_g_[u] = Quad<T>::load(gradient_ + u * stride_);
  }

  // The three positions before the strip.
  __device__ void look_back() {
    Quad<T> rows[kBefore];
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      float zero[kQuad] = {};
      rows[u] = Quad<T>::of(zero);
      if (strip_.first >= (kBefore - u) * c_.dilation) {
        rows[u] = Quad<T>::load(x_ - (kBefore - u) * stride_);
      }
    }
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        x_ring_[u][k] = shared_.known[u].scale * rows[u][k];
        dz_ring_[u][k] = 0.0f;
      }
    }
  }

  template <bool kMidst>
  __device__ void round(int base) {
    x_ += kBefore * stride_;
    gradient_ += kBefore * stride_;
    Finished finished[kBatch];
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      finished[u % kBatch] = step<kMidst>(base + u, u, next_x_[u], next_g_[u]);
      // Beyond the class's end nothing is read: what is left there no tap sees.
      if (kMidst || base + kBefore + u < strip_.available) prefetch(u);
      if constexpr (kBatch == 1) write<kMidst>(base + u - kBefore, u, finished);
    }
    if constexpr (kBatch > 1) write<kMidst>(base - kBefore, 0, finished);
    if (out_ != nullptr) out_ += kBefore * stride_;
  }

  // Step i, whose slot until its end holds the position three steps back; finishes that.
  template <bool kMidst>
  __device__ Finished step(int i, int slot, const Quad<T>& x, const Quad<T>& g) {
    const Known& here = shared_.known[i + kBefore];
    const Known& back = shared_.known[i];
    const int seen = kMidst ? 0 : here.seen;
    const int seen_ahead = kMidst ? 0 : back.seen >> 4;
    // Tap j looks at slot + j, and from there dz of the steps since looks back.
    const auto sees = [](int bits, int j) { return kMidst || (bits >> j & 1) != 0; };
    float now[kQuad], z[kQuad], dz[kQuad], m[kQuad];
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      now[k] = here.scale * x[k];
      z[k] = tap_[kBefore][k] * now[k];
    }
#pragma unroll
    for (int j = 0; j < kBefore; ++j) {
      if (!sees(seen, j)) continue;
#pragma unroll
      for (int k = 0; k < kQuad; ++k) z[k] += tap_[j][k] * x_ring_[(slot + j) % kBefore][k];
    }
#pragma unroll
    for (int k = 0; k < kQuad; ++k) dz[k] = g[k] * silu_slope(z[k]);
    if (kMidst || i < strip_.length) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sums_[kBefore][k] += dz[k] * now[k];
#pragma unroll
      for (int j = 0; j < kBefore; ++j) {
        if (!sees(seen, j)) continue;
#pragma unroll
        for (int k = 0; k < kQuad; ++k) sums_[j][k] += dz[k] * x_ring_[(slot + j) % kBefore][k];
      }
    }
#pragma unroll
    for (int k = 0; k < kQuad; ++k) m[k] = tap_[kBefore][k] * dz_ring_[slot][k];
#pragma unroll
    for (int j = 1; j < kBefore; ++j) {
      if (!sees(seen_ahead, j)) continue;
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        m[k] += tap_[j][k] * dz_ring_[(slot + kBefore - j) % kBefore][k];
      }
    }
    if (sees(seen_ahead, 0)) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) m[k] += tap_[0][k] * dz[k];
    }
    Finished finished;
    finished.scale = back.scale;
    finished.dot = 0.0f;
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      finished.x[k] = x_ring_[slot][k];
      finished.dot += m[k] * finished.x[k];
      finished.plain[k] = finished.scale * m[k] + ended_[slot][k];
      x_ring_[slot][k] = now[k];
      dz_ring_[slot][k] = dz[k];
    }
    ended_[slot] = g;
    return finished;
  }

  // Adds the dots over the block and writes positions i to i + kBatch of the strip, the first of
  // them `u` steps from out_.
  template <bool kMidst>
  __device__ void write(int i, int u, const Finished (&finished)[kBatch]) {
    const int warps = blockDim.x / 32;
    float* const dots = shared_.dots + parity_;
    parity_ ^= warps * kQuad;
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      const float sum = warp_sum(owns_ ? finished[n].dot : 0.0f);
      if (threadIdx.x % 32 == 0) dots[threadIdx.x / 32 * kQuad + n] = sum;
    }
    __syncthreads();
    float along[kBatch] = {};
#pragma unroll 1
    for (int w = 0; w < warps; ++w) {
      const auto sums = Quad<float>::load(dots + w * kQuad);
#pragma unroll
      for (int n = 0; n < kBatch; ++n) along[n] += sums[n];
    }
    if (!owns_ || out_ == nullptr) return;
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      if (!kMidst && (i + n < 0 || i + n >= strip_.length)) continue;
      T* const out = out_ + (u + n) * stride_;
      const float factor = along[n] * share_ * finished[n].scale;
      float sum[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sum[k] = finished[n].plain[k] - factor * finished[n].x[k];
      if (add_) {
        const auto so_far = Quad<T>::load(out);
#pragma unroll
        for (int k = 0; k < kQuad; ++k) sum[k] += so_far[k];
      }
      Quad<T>::of(sum).store(out);
    }
  }

  const Convolution<T>& c_;
  const Shared& shared_;
  const Strip& strip_;
  const int channel_;
  const bool owns_;
  const bool add_;
  const std::int64_t stride_;  // elements of a step
  const float share_;
  const T* x_;  // of the round's first step, as gradient_
  const T* gradient_;
  T* out_;          // three steps back; null: not wanted
  int parity_ = 0;  // of rounds, times a round's part of the dots
  float tap_[kUsualTaps][kQuad];
  float sums_[kUsualTaps][kQuad];
  float x_ring_[kBefore][kQuad];
  float dz_ring_[kBefore][kQuad];
  Quad<T> ended_[kBefore];  // the gradient
  Quad<T> next_x_[kBefore], next_g_[kBefore];
};

template <class T, int kMostThreads, int kBatch>
__global__ void __launch_bounds__(kMostThreads, kMostThreads > 256 ? 1 : 2)
    walk_kernel(const __grid_constant__ Convolution<T> c, const T* gradient, int most, T* dx,
                bool add, float* partial) {
  extern __shared__ __align__(16) unsigned char walk_shared[];
  const Shared shared(walk_shared, most);
  const Strip strip = Strip::of_block(c, most);
  shared.fill(c, strip, most);
  Walk<T, kBatch> walk(c, gradient, dx, add, strip, shared);
  walk.run();
  walk.store_sums(partial);
}

template <class T, int kMostThreads, int kBatch>
Tensor launch(const Convolution<T>& c, int threads, const T* gradient, T* dx, bool add,
              Device device) {
  const auto kernel = walk_kernel<T, kMostThreads, kBatch>;
  int resident = 0;  // blocks of a multiprocessor
  FULCRUM_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &resident, kernel, threads, Shared::bytes(Strips::kMost, threads)));
  const Strips strips =
      Strips::over(c, static_cast<std::int64_t>(std::max(resident, 1)) * multiprocessors());
  const std::int64_t parts = strips.blocks;
  const std::int64_t width = c.d;
  const Tensor partial =
      Tensor::empty({parts, std::int64_t{kUsualTaps}, width}, DType::f32, device);
  kernel<<<static_cast<unsigned>(strips.blocks), threads, Shared::bytes(strips.most, threads),
           compute_stream()>>>(c, gradient, strips.most, dx, add, device_data<float>(partial));
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

}  // namespace

template <class T>
Tensor convolution_walk(const Convolution<T>& c, const T* gradient, T* dx, bool add,
                        Device device) {
  // A thread needs some hundred registers.
  constexpr int kNarrow = 256;
  constexpr int kWide = 640;
  const int threads = static_cast<int>(ceil_div(c.d / kQuad, 32) * 32);
  if (c.norm == nullptr || c.taps != kUsualTaps || threads > kWide) return {};
  if (threads > kNarrow) return launch<T, kWide, 1>(c, threads, gradient, dx, add, device);
  return launch<T, kNarrow, kBefore>(c, threads, gradient, dx, add, device);
}

template Tensor convolution_walk(const Convolution<float>&, const float*, float*, bool, Device);
template Tensor convolution_walk(const Convolution<__nv_bfloat16>&, const __nv_bfloat16*,
                                 __nv_bfloat16*, bool, Device);

}  // namespace fulcrum::ops::cuda
