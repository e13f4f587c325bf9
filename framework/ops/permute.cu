#include <bit>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/permute_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
// Blocks of a multiprocessor. Without this number the compiler trades loads in flight for more
// blocks than memory needs: it moves each load next to its use, one after the other.
constexpr int kBlocks = 4;
constexpr int kMostSlots = 8;  // rows of one token that a thread has on their way at once

// Blocks are wide enough for a row, up to kThreads, and take as many tokens as then fit.
dim3 block_for(std::int64_t units) {
  const auto wide = static_cast<unsigned>(std::clamp<std::int64_t>(units, 1, kThreads));
  return {wide, kThreads / wide};
}

unsigned blocks_for(std::int64_t tokens, dim3 block) {
  return static_cast<unsigned>(ceil_div(tokens, block.y));
}

// The rows of kSlots slots of a token from slot j on; −1 behind the last.
template <int kSlots>
struct Rows {
  std::int64_t row[kSlots];

  __device__ Rows(const std::int64_t* slots, int j, int k) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) row[s] = j + s < k ? slots[j + s] : -1;
  }
};

// Rows of `units` elements that are moved as they are. The block of tokens t also looks after the
// rows t · k ..: those at or behind `kept` belong to nobody.
template <class Unit, int kSlots>
__global__ void __launch_bounds__(kThreads, kBlocks)
    spread_kernel(const Unit* __restrict__ x, const std::int64_t* __restrict__ slot,
                  const std::int64_t* __restrict__ kept, std::int64_t tokens, int k, int units,
                  Unit* __restrict__ rows) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (t >= tokens) return;
  for (int c = threadIdx.x; c < units; c += static_cast<int>(blockDim.x)) {
    const Unit value = x[t * units + c];
    for (int j = 0; j < k; j += kSlots) {
      const Rows<kSlots> to(slot + t * k, j, k);
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        if (to.row[s] >= 0) rows[to.row[s] * units + c] = value;
      }
    }
  }
  const std::int64_t end = (t + 1) * k;
  if (end <= *kept) return;
  for (std::int64_t row = max(*kept, t * k); row < end; ++row) {
    for (int c = threadIdx.x; c < units; c += static_cast<int>(blockDim.x)) {
      rows[row * units + c] = Unit{};
    }
  }
}

// A pack, or zeros where it is not wanted; 16 bytes stay in one piece until they are used.
template <class T, int N>
__device__ inline Pack<T, N> load_if(const T* p, bool wanted) {
  if constexpr (sizeof(Pack<T, N>) == 16) {
    uint4 bits{};
    if (wanted) bits = *reinterpret_cast<const uint4*>(p);
    return std::bit_cast<Pack<T, N>>(bits);
  } else {
    return wanted ? Pack<T, N>::load(p) : Pack<T, N>{};
  }
}

// Packs of N elements; the rows of kSlots slots are on their way before any is used. base is read
// with kBase.
template <class T, int N, int kSlots, bool kBase>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sum_kernel(const T* __restrict__ rows, const std::int64_t* __restrict__ slot, const T* base,
               std::int64_t tokens, int k, int width, T* out) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (t >= tokens) return;
  for (int c = static_cast<int>(threadIdx.x) * N; c < width;
       c += static_cast<int>(blockDim.x) * N) {
    float sum[N] = {};
    for (int j = 0; j < k; j += kSlots) {
      const Rows<kSlots> from(slot + t * k, j, k);
      Pack<T, N> value[kSlots];
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        value[s] = load_if<T, N>(rows + from.row[s] * width + c, from.row[s] >= 0);
      }
      if (kBase && j == 0) {
        const auto first = Pack<T, N>::load(base + t * width + c);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = first[i];
      }
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += value[s][i];
      }
    }
    Pack<T, N> to;
#pragma unroll
    for (int i = 0; i < N; ++i) to.set(i, sum[i]);
    to.store(out + t * width + c);
  }
}

// Calls fn<kSlots>() with as many slots as a token has, or the most that a thread holds.
template <class Fn>
void with_slots(std::int64_t k, Fn&& fn) {
  if (k <= 1) {
    fn.template operator()<1>();
  } else if (k <= 2) {
    fn.template operator()<2>();
  } else if (k <= 4) {
    fn.template operator()<4>();
  } else if (k <= 6) {
    fn.template operator()<6>();
  } else {
    fn.template operator()<kMostSlots>();
  }
}

template <class Unit>
void spread(const Tensor& x, const Permutation& p, const Tensor& rows) {
  const std::int64_t units =
      x.dim(1) * size_of(x.dtype()) / static_cast<std::int64_t>(sizeof(Unit));
  const dim3 block = block_for(units);
  with_slots(p.slot.dim(1), [&]<int kSlots>() {
    spread_kernel<Unit, kSlots><<<blocks_for(p.tokens(), block), block, 0, compute_stream()>>>(
        static_cast<const Unit*>(x.raw()), device_data<std::int64_t>(p.slot),
        device_data<std::int64_t>(p.offsets) + p.offsets.numel() - 1, p.tokens(),
        static_cast<int>(p.slot.dim(1)), static_cast<int>(units), static_cast<Unit*>(rows.raw()));
  });
}

template <class T, int N, bool kBase>
void sum(const Tensor& rows, const Permutation& p, const Tensor& base, const Tensor& out) {
  const auto width = static_cast<int>(out.dim(1));
  const dim3 block = block_for(width / N);
  with_slots(p.slot.dim(1), [&]<int kSlots>() {
    sum_kernel<T, N, kSlots, kBase><<<blocks_for(p.tokens(), block), block, 0, compute_stream()>>>(
        device_data<T>(rows), device_data<std::int64_t>(p.slot), device_data<T>(base), p.tokens(),
        static_cast<int>(p.slot.dim(1)), width, device_data<T>(out));
  });
}

}  // namespace

void spread_rows(const Tensor& x, const Permutation& p, const Tensor& rows) {
  if (rows.numel() == 0) return;
  dispatch_cuda("permute", x.dtype(), [&]<class T>() {
    if (is_wide<T>(x.raw(), x.dim(1)) && is_wide<T>(rows.raw(), x.dim(1))) {
      spread<uint4>(x, p, rows);
    } else {
      spread<T>(x, p, rows);
    }
  });
  FULCRUM_CUDA_LAUNCHED();
}

void sum_slots(const Tensor& rows, const Permutation& p, const Tensor& base, const Tensor& out) {
  if (out.numel() == 0) return;
  dispatch_cuda("combine", out.dtype(), [&]<class T>() {
    bool wide = true;
    for (const Tensor* x : {&rows, &base, &out}) {
      wide = wide && (!x->defined() || is_wide<T>(x->raw(), out.dim(1)));
    }
    constexpr int kN = kWide<T>;
    if (wide) {
      base.defined() ? sum<T, kN, true>(rows, p, base, out) : sum<T, kN, false>(rows, p, base, out);
    } else {
      base.defined() ? sum<T, 1, true>(rows, p, base, out) : sum<T, 1, false>(rows, p, base, out);
    }
  });
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
