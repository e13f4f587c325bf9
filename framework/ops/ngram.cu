#include <algorithm>
#include <limits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/ngram_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;
constexpr int kMostColumns = 64;  // of one launch
constexpr int kMostTokens = 16;   // of an n-gram

// Up to kMostColumns neighbouring columns of a hash. As an argument of the kernel they are constant
// memory, which is slow where threads read different places, so blocks copy them.
struct Columns {
  std::uint64_t multipliers[kMostTokens];
  std::uint64_t primes[kMostColumns];
  std::uint64_t reciprocals[kMostColumns];  // ⌊(2⁶⁴ − 1) / prime⌋
  std::int64_t offsets[kMostColumns];
  int tokens[kMostColumns];  // n of the n-gram
  int count;
};

// A thread takes one column of one position; the block's y is the sequence.
__global__ void __launch_bounds__(kThreads)
    rows_kernel(const std::int32_t* ids, const std::int32_t* starts, const std::int32_t* map,
                const __grid_constant__ Columns columns, std::int32_t pad, std::uint32_t seq,
                int all_columns, int first_column, std::int64_t* rows) {
  __shared__ std::uint64_t primes[kMostColumns];
  __shared__ std::uint64_t reciprocals[kMostColumns];
  __shared__ std::int64_t offsets[kMostColumns];
  __shared__ int tokens[kMostColumns];
  for (int i = threadIdx.x; i < columns.count; i += kThreads) {
    primes[i] = columns.primes[i];
    reciprocals[i] = columns.reciprocals[i];
    offsets[i] = columns.offsets[i];
    tokens[i] = columns.tokens[i];
  }
  __syncthreads();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.y) * seq;
  const auto count = static_cast<std::uint32_t>(columns.count);
  std::uint32_t item = blockIdx.x * (kThreads * kPerThread) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i, item += kThreads) {
    const std::uint32_t t = item / count;
    const std::uint32_t column = item % count;
    if (t >= seq) return;
    const std::uint32_t first = starts == nullptr ? 0 : starts[begin + t];
    const auto n = static_cast<std::uint32_t>(tokens[column]);
    std::uint64_t mix = 0;
    for (std::uint32_t k = 0; k < n; ++k) {
      std::int32_t token = pad;
      if (t >= first + k) {
        token = ids[begin + t - k];
        if (map != nullptr) token = map[token];
      }
      mix ^= static_cast<std::uint64_t>(token) * columns.multipliers[k];
    }
    // With the rounded reciprocal the quotient is right or one too small.
    std::uint64_t rest = mix - __umul64hi(mix, reciprocals[column]) * primes[column];
    if (rest >= primes[column]) rest -= primes[column];
    rows[(begin + t) * all_columns + first_column + column] =
        offsets[column] + static_cast<std::int64_t>(rest);
  }
}

}  // namespace

Tensor ngram_rows(const Tensor& ids, const Tensor& document_start, const NgramHash& hash,
                  std::int64_t pad_id, const Tensor& id_map) {
  Tensor rows = Tensor::empty({ids.numel(), hash.columns()}, DType::i64, ids.device());
  if (rows.numel() == 0) return rows;
  FULCRUM_REQUIRE(hash.orders.back() <= kMostTokens,
                  "ngram_rows: n-grams of at most {} tokens on CUDA; got {}", kMostTokens,
                  hash.orders.back());
  const std::int64_t seq = ids.dim(1);
  FULCRUM_REQUIRE(ids.dim(0) <= 65535 && seq <= (std::int64_t{1} << 31) / kMostColumns,
                  "ngram_rows: a batch {} is too large", ids.shape());
  for (std::int64_t first = 0; first < hash.columns(); first += kMostColumns) {
    Columns columns{};
    columns.count = static_cast<int>(std::min<std::int64_t>(kMostColumns, hash.columns() - first));
    for (std::size_t k = 0; k < hash.multipliers.size(); ++k) {
      columns.multipliers[k] = static_cast<std::uint64_t>(hash.multipliers[k]);
    }
    for (int i = 0; i < columns.count; ++i) {
      const auto column = static_cast<std::size_t>(first + i);
      columns.primes[i] = static_cast<std::uint64_t>(hash.primes[column]);
      columns.reciprocals[i] = std::numeric_limits<std::uint64_t>::max() / columns.primes[i];
      columns.offsets[i] = hash.offsets[column];
      columns.tokens[i] =
          static_cast<int>(hash.orders[column / static_cast<std::size_t>(hash.heads)]);
    }
    const dim3 grid(static_cast<unsigned>(ceil_div(seq * columns.count, kThreads * kPerThread)),
                    static_cast<unsigned>(ids.dim(0)));
    rows_kernel<<<grid, kThreads, 0, compute_stream()>>>(
        device_data<std::int32_t>(ids), device_data<std::int32_t>(document_start),
        device_data<std::int32_t>(id_map), columns, static_cast<std::int32_t>(pad_id),
        static_cast<std::uint32_t>(seq), static_cast<int>(hash.columns()), static_cast<int>(first),
        device_data<std::int64_t>(rows));
    FULCRUM_CUDA_LAUNCHED();
  }
  return rows;
}

}  // namespace fulcrum::ops::cuda
