// The gradient of the table: the rows without tokens become zero beside the work that finds out in
// which order the tokens of the others stand, since that is many small steps that leave memory
// idle.
#include <algorithm>
#include <limits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/core/cuda_side_stream.h"
#include "framework/ops/counted_segments_cuda.h"
#include "framework/ops/embedding_cuda.h"
#include "framework/ops/token_sums.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kZeroRows = 16;  // that a block looks at together

__global__ void __launch_bounds__(kTokenThreads)
    mark_kernel(const std::int32_t* ids, int n, std::uint8_t* marks) {
  const int i = blockIdx.x * kTokenThreads + threadIdx.x;
  if (i < n) marks[ids[i]] = 1;
}

// Rows without a mark become zero.
template <int kN>
__global__ void __launch_bounds__(kTokenThreads)
    zero_rows_kernel(const std::uint8_t* marks, int vocabulary, int width, float* out) {
  const int lane = threadIdx.x % 32;
  const auto marked = [&](std::int64_t first) {
    return lane >= kZeroRows || first + lane >= vocabulary || marks[first + lane] != 0;
  };
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kZeroRows;
  PackSum<kN> zero;
  zero.clear();
  std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kZeroRows;
  bool next = marked(first);
  for (; first < vocabulary; first += step) {
    unsigned empty = ~__ballot_sync(0xffffffffu, next);
    next = marked(first + step);  // on its way while zeros are written
    for (; empty != 0; empty &= empty - 1) {
      float* row = out + (first + __ffs(static_cast<int>(empty)) - 1) * width;
      for (int c = static_cast<int>(threadIdx.x) * kN; c < width; c += kTokenThreads * kN) {
        zero.store(row + c);
      }
    }
  }
}

// Few blocks, which do not keep those of the compute stream from starting.
template <int kN>
void zero_rows(cudaStream_t stream, const Tensor& ids, const Tensor& marks, const Tensor& out) {
  const auto n = static_cast<int>(ids.dim(0));
  const auto vocabulary = static_cast<int>(out.dim(0));
  auto* mark = static_cast<std::uint8_t*>(marks.raw());
  FULCRUM_CUDA_CHECK(cudaMemsetAsync(mark, 0, static_cast<std::size_t>(vocabulary), stream));
  mark_kernel<<<static_cast<unsigned>(ceil_div(n, kTokenThreads)), kTokenThreads, 0, stream>>>(
      device_data<std::int32_t>(ids), n, mark);
  FULCRUM_CUDA_LAUNCHED();
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div(vocabulary, kZeroRows), 2 * multiprocessors()));
  zero_rows_kernel<kN><<<blocks, kTokenThreads, 0, stream>>>(
      mark, vocabulary, static_cast<int>(out.dim(1)), device_data<float>(out));
  FULCRUM_CUDA_LAUNCHED();
}

template <class T, int kN>
void sum_tokens(const Tensor& g, const Tensor& ids, const Tensor& out, bool add) {
  const auto n = static_cast<int>(ids.dim(0));
  const auto vocabulary = static_cast<int>(out.dim(0));
  const auto width = static_cast<int>(out.dim(1));
  const CountedSegments ordered = count_segments({ids}, vocabulary);
  const OrderedTokens tokens{device_data<std::int32_t>(ordered.segments.positions),
                             device_data<std::int32_t>(ordered.segments.numbers),
                             device_data<std::int32_t>(ordered.segments.offsets),
                             device_data<std::int64_t>(ordered.segments.count),
                             device_data<std::int32_t>(ordered.first),
                             n};
  const auto tiles = static_cast<unsigned>(ceil_div(n, kTile));
  const Tensor partial = Tensor::empty({tiles, 2, width}, DType::f32, g.device());
  const Gradient<T> gradient{device_data<T>(g), width, device_data<float>(partial)};
  const int packs = width / kN;
  const auto threads = static_cast<unsigned>(std::min(kTokenThreads, (packs + 31) / 32 * 32));
  const auto slices = static_cast<unsigned>(ceil_div(packs, threads));
  parts_kernel<T, kN><<<dim3(tiles, slices), threads, 0, compute_stream()>>>(gradient, tokens);
  FULCRUM_CUDA_LAUNCHED();
  const auto blocks = static_cast<unsigned>(ceil_div(vocabulary, kRows));
  rows_kernel<T, kN><<<dim3(blocks, slices), threads, 0, compute_stream()>>>(
      gradient, tokens, vocabulary, device_data<float>(out), add);
  FULCRUM_CUDA_LAUNCHED();
}

template <class T, int kN>
void backward(const Tensor& g, const Tensor& ids, const Tensor& out, bool add) {
  if (add) return sum_tokens<T, kN>(g, ids, out, true);
  const Tensor marks = Tensor::empty({out.dim(0)}, DType::u8, out.device());
  SideStream side;
  zero_rows<kN>(side.stream(), ids, marks, out);
  sum_tokens<T, kN>(g, ids, out, false);
  side.join();
}

}  // namespace

void embedding_backward(const Tensor& g, const Tensor& ids, const Tensor& out, bool add) {
  if (out.numel() == 0) return;
  if (ids.dim(0) == 0) {
    if (!add) out.zero();
    return;
  }
  dispatch_cuda("embedding", g.dtype(), [&]<class T>() {
    constexpr int kN = 4;
    const T* from = device_data<T>(g);
    const float* to = device_data<float>(out);
    out.dim(1) % kN == 0 && is_aligned(from, kN) && is_aligned(to, kN)
        ? backward<T, kN>(g, ids, out, add)
        : backward<T, 1>(g, ids, out, add);
  });
}

}  // namespace fulcrum::ops::cuda
