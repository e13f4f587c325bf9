#pragma once
// How a group of warps goes over a strip of the short convolution's backward.

#include "framework/core/async_copy.cuh"
#include "framework/ops/short_convolution.cuh"
#include "framework/ops/short_convolution_dots.cuh"

namespace fulcrum::ops::cuda {

// Backward in one pass over x and the gradient.
//
// A group of warps walks over a strip of a class. At position q a thread forms dz(q) of its
// channels and, with dz of the three positions before, m(p) of p = q − reach, whose taps look ahead
// to q, q − dilation, …: with m(p) = Σ_j taps_j ⊙ dz(p + reach_j),
//   dx(p) = scale·(m − ⟨m, x·scale⟩ / d · x·scale) + gradient(p).
// Only ⟨m, x⟩ needs the whole row, once in a round of three steps. After the strip the group walks
// on for a round, whose dz the strip still needs.
//
// Instructions bind it as much as bytes do: taps are halved and dz doubled, which saves two of them
// (twice_silu_slope), and a round in the midst of a document and the strip asks nothing.
//
// Rows of x·scale and dz stay in registers for three steps, in slot (step % 3). x and the gradient
// themselves come into shared memory some rounds ahead and stay until dx is written: a thread reads
// none but its own part of them, so that only the sums of ⟨m, x⟩ need a barrier.
//
// One block fills a multiprocessor, with as many groups as have room. So a row of 2560 channels
// has the registers it needs, and few partial sums of the taps' gradients are left to add.

constexpr int kMostThreads = 640;
constexpr int kMostGroups = 15;  // named barriers but the block's own

// The rows of some rounds in shared memory: x of three steps, then the gradient.
template <class T>
struct Ring {
  static constexpr int kAhead = sizeof(T) == 2 ? 2 : 1;  // rounds asked for beforehand
  static constexpr int kRounds = kAhead + 2;             // those, this one and the one before
  static constexpr int kRound = 2 * kBefore * kMostThreads;
  static constexpr std::size_t kBytes = kRounds * kRound * sizeof(Quad<T>);

  Quad<T>* mine;  // of this thread

  __device__ Quad<T>* x(int round) const {
    return mine + static_cast<unsigned>(round + kRounds) % kRounds * kRound;
  }
  __device__ Quad<T>* gradient(int round) const { return x(round) + kBefore * kMostThreads; }
};

// Which conditions a round must ask for.
enum class Place {
  start,  // the first, or near a border of documents
  midst,  // all taps see both ways
  tail,   // after the strip: for the last positions' dx only
};

template <class T, bool kAdd>
class Walk {
 public:
  __device__ Walk(const Convolution<T>& c, const T* gradient, T* dx, const Strip& strip, int thread,
                  Quad<T>* ring, const Dots<kBefore>& dots, const Known* known, const bool* midst)
      : dots_(dots),
        known_(known),
        midst_(midst),
        ring_{ring + threadIdx.x},
        length_(strip.length),
        asked_(strip.available < strip.length + kBefore ? strip.available : strip.length + kBefore),
        channel_(thread * kQuad),
        owns_(channel_ < c.d),
        writes_(owns_ && dx != nullptr),
        stride_(static_cast<std::uint32_t>(c.dilation) * static_cast<std::uint32_t>(c.d)),
        share_(1.0f / static_cast<float>(c.d)) {
    const std::int64_t at = static_cast<std::int64_t>(strip.first) * c.d + (owns_ ? channel_ : 0);
    x_ = c.x + at;
    gradient_ = gradient + at;
    out_ = dx + at;
#pragma unroll
    for (int r = 0; r < Ring<T>::kAhead; ++r) ask(r);
      // The three positions before the strip, not yet times their scale.
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      float zero[kQuad] = {};
      Quad<T> row = Quad<T>::of(zero);
      if (strip.length > 0 && strip.first >= (kBefore - u) * c.dilation) {
        row = Quad<T>::load(c.x + at - std::uint64_t{stride_} * (kBefore - u));
      }
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        x_ring_[u][k] = row[k];
        dz_ring_[u][k] = 0.0f;
      }
    }
    c.taps_of(owns_ ? channel_ : 0, tap_);
#pragma unroll
    for (int j = 0; j < kUsualTaps; ++j) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        sums_[j][k] = 0.0f;
        // Lanes beyond the row add nothing to sums over it.
        tap_[j][k] = owns_ ? 0.5f * tap_[j][k] : 0.0f;
      }
    }
  }

  // Once all that shared memory must know is there.
  __device__ void run() {
    if (length_ > 0) {
#pragma unroll
      for (int u = 0; u < kBefore; ++u) {
#pragma unroll
        for (int k = 0; k < kQuad; ++k) x_ring_[u][k] *= known_[u].scale;
      }
      const int last = (length_ + kBefore - 1) / kBefore;
      for (int r = 0; r < last; ++r) {
        // In a loop of its own, whose registers need not suit the other.
#pragma unroll 1
        for (; r < last && midst_[r]; ++r) round<Place::midst>(r);
        if (r < last) round<Place::start>(r);
      }
      round<Place::tail>(last);
    }
    wait_for_copies<0>();
  }

  // Adds the sums of the block's groups and stores them. The ring holds them meanwhile.
  __device__ void store_sums(unsigned char* memory, int groups, int threads, int d,
                             float* partial) const {
    auto* const kept = reinterpret_cast<Quad<float>*>(memory) + threadIdx.x;
    __syncthreads();
    if (threadIdx.x >= threads) {
#pragma unroll
      for (int j = 0; j < kUsualTaps; ++j) kept[j * kMostThreads] = Quad<float>::of(sums_[j]);
    }
    __syncthreads();
    if (threadIdx.x >= threads || !owns_) return;
#pragma unroll
    for (int j = 0; j < kUsualTaps; ++j) {
      float sum[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sum[k] = sums_[j][k];
#pragma unroll 1
      for (int g = 1; g < groups; ++g) {
        const Quad<float> other = kept[j * kMostThreads + g * threads];
#pragma unroll
        for (int k = 0; k < kQuad; ++k) sum[k] += other[k];
      }
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sum[k] *= 0.5f;  // they were of 2·dz
      Quad<float>::of(sum).store(
          partial + (static_cast<std::int64_t>(blockIdx.x) * kUsualTaps + j) * d + channel_);
    }
  }

 private:
  // Asks for the rows of the next round in order. Beyond what the strip needs they are zero: no tap
  // sees them, but they pass through the arithmetic.
  __device__ void ask(int round) {
    Quad<T>* const x = ring_.x(round);
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      const bool wanted = asked_ - round * kBefore > u;
      copy_async<sizeof(Quad<T>)>(x + u * kMostThreads, x_ + std::uint64_t{stride_} * u, wanted);
      copy_async<sizeof(Quad<T>)>(x + (kBefore + u) * kMostThreads,
                                  gradient_ + std::uint64_t{stride_} * u, wanted);
    }
    commit_copies();
    x_ += std::uint64_t{stride_} * kBefore;
    gradient_ += std::uint64_t{stride_} * kBefore;
  }

  template <Place kPlace>
  __device__ void round(int r) {
    ask(r + Ring<T>::kAhead);
    wait_for_copies<Ring<T>::kAhead>();
    const Quad<T>* const x = ring_.x(r);
    const Quad<T>* const g = ring_.gradient(r);
    const Known* const known = known_ + r * kBefore;  // of the round before
    float m[kBefore][kQuad], along[kBefore];
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      step<kPlace>(known[kBefore + u], known[u].seen >> 4, u, x[u * kMostThreads],
                   g[u * kMostThreads], m[u]);
      // x_ring_ of the slot is still that of three steps ago.
      along[u] = 0.0f;
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        along[u] += m[u][k] * x_ring_[u][k];
        x_ring_[u][k] = now_[k];
      }
    }
    dots_.add_up(along);
    if (kPlace != Place::midst && r == 0) return;
    if (writes_) write<kPlace>(r - 1, known, m, along);
    out_ += std::uint64_t{stride_} * kBefore;
  }

  // A step, whose slot until its end holds the position three steps back; m is of that.
  template <Place kPlace>
  __device__ void step(const Known& here, int seen_ahead, int slot, const Quad<T>& x,
                       const Quad<T>& g, float (&m)[kQuad]) {
    // Tap j looks at slot + j, and from there dz of the steps since looks back.
    const int seen = here.seen;
    const auto sees = [](int bits, int j) {
      return kPlace == Place::midst || (bits >> j & 1) != 0;
    };
    float half[kQuad];  // of z
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
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      now_[k] = here.scale * x[k];
      half[k] = tap_[kBefore][k] * now_[k];
    }
#pragma unroll
    for (int j = 0; j < kBefore; ++j) {
      if (!sees(seen, j)) continue;
#pragma unroll
      for (int k = 0; k < kQuad; ++k) half[k] += tap_[j][k] * x_ring_[(slot + j) % kBefore][k];
    }
#pragma unroll
    for (int k = 0; k < kQuad; ++k) dz_ring_[slot][k] = g[k] * twice_silu_slope<T>(half[k]);
    if constexpr (kPlace != Place::tail) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sums_[kBefore][k] += dz_ring_[slot][k] * now_[k];
#pragma unroll
      for (int j = 0; j < kBefore; ++j) {
        if (!sees(seen, j)) continue;
#pragma unroll
        for (int k = 0; k < kQuad; ++k) {
          sums_[j][k] += dz_ring_[slot][k] * x_ring_[(slot + j) % kBefore][k];
        }
      }
    }
    if (sees(seen_ahead, 0)) {
#pragma unroll
      for (int k = 0; k < kQuad; ++k) m[k] += tap_[0][k] * dz_ring_[slot][k];
    }
  }

  // dx of a round, from its m and ⟨m, x·scale⟩.
  template <Place kPlace>
  __device__ void write(int round, const Known* known, const float (&m)[kBefore][kQuad],
                        const float (&along)[kBefore]) {
    const Quad<T>* const x = ring_.x(round);
    const Quad<T>* const g = ring_.gradient(round);
#pragma unroll
    for (int u = 0; u < kBefore; ++u) {
      if (kPlace == Place::tail && round * kBefore + u >= length_) break;
      const float scale = known[u].scale;
      const float factor = along[u] * share_ * scale * scale;
      const Quad<T> row = x[u * kMostThreads];
      const Quad<T> through = g[u * kMostThreads];
      T* const out = out_ + std::uint64_t{stride_} * u;
      float sum[kQuad];
#pragma unroll
      for (int k = 0; k < kQuad; ++k) sum[k] = through[k] + scale * m[u][k] - factor * row[k];
      if constexpr (kAdd) {
        const auto so_far = Quad<T>::load(out);
#pragma unroll
        for (int k = 0; k < kQuad; ++k) sum[k] += so_far[k];
      }
      Quad<T>::of(sum).store(out);
    }
  }

  Dots<kBefore> dots_;
  const Known* const known_;  // of step −3 on
  const bool* const midst_;   // of each round in the strip
  const Ring<T> ring_;
  const int length_;  // of the strip
  const int asked_;   // steps whose rows are wanted
  const int channel_;
  const bool owns_;
  const bool writes_;           // dx is wanted and this thread's part of it is in the row
  const std::uint32_t stride_;  // elements of a step
  const float share_;
  const T* x_;  // of the first step that was not asked for, as gradient_
  const T* gradient_;
  T* out_;                        // of the round that is written next
  float tap_[kUsualTaps][kQuad];  // half of it
  float sums_[kUsualTaps][kQuad];
  float x_ring_[kBefore][kQuad];
  float dz_ring_[kBefore][kQuad];  // twice dz
  float now_[kQuad];
};

}  // namespace fulcrum::ops::cuda
