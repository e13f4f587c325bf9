#include <algorithm>
#include <vector>

#include "framework/ops/segment_sums.cuh"
#include "framework/ops/segments_cuda.h"
#include "framework/ops/table_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

template <class T>
Parts<T> parts_of(const SparseRows& gradient) {
  Parts<T> parts;
  std::int32_t first = 0;
  for (const Tensor& values : gradient.values) {
    if (values.dim(0) == 0) continue;
    parts.values[parts.count] = device_data<T>(values);
    parts.first[parts.count++] = first;
    first += static_cast<std::int32_t>(values.dim(0));
  }
  return parts;
}

template <class T, int kPack>
void sum_values(const SparseRows& gradient, const Segments& segments, const Tensor& values) {
  const int width = static_cast<int>(values.dim(1));
  const std::int64_t n = segments.size();
  const Sorted sorted{device_data<std::int32_t>(segments.positions),
                      device_data<std::int32_t>(segments.numbers), static_cast<std::int32_t>(n)};
  const std::int64_t chunks = ceil_div(n, kChunk);
  const std::int64_t groups = n / (kChunk * kChunk);
  const Tensor left = Tensor::empty({chunks, width}, DType::f32, values.device());
  const Tensor right = Tensor::empty_like(left);
  const Tensor group_sums = Tensor::empty({groups, width}, DType::f32, values.device());
  const Pieces pieces{device_data<float>(left), device_data<float>(right)};
  const auto blocks = [&](std::int64_t items) {
    return static_cast<unsigned>(ceil_div(items * (width / kPack), kSumThreads));
  };
  const Parts<T> parts = parts_of<T>(gradient);
  const auto kernel =
      parts.count == 1 ? &chunks_kernel<T, kPack, true> : &chunks_kernel<T, kPack, false>;
  kernel<<<blocks(chunks), kSumThreads, 0, compute_stream()>>>(parts, sorted, width,
                                                               device_data<float>(values), pieces);
  FULCRUM_CUDA_LAUNCHED();
  if (groups > 0) {
    groups_kernel<kPack><<<blocks(groups), kSumThreads, 0, compute_stream()>>>(
        sorted, width, pieces.left, device_data<float>(group_sums));
    FULCRUM_CUDA_LAUNCHED();
  }
  if (chunks < 2) return;
  pieces_kernel<kPack><<<blocks(chunks), kSumThreads, 0, compute_stream()>>>(
      sorted, device_data<std::int32_t>(segments.offsets),
      device_data<std::int64_t>(segments.count), width, pieces, device_data<float>(group_sums),
      device_data<float>(values));
  FULCRUM_CUDA_LAUNCHED();
}

// One part, for a gradient of more than a kernel's arguments hold.
SparseRows joined(const SparseRows& gradient) {
  std::int64_t n = 0;
  for (const Tensor& rows : gradient.rows) n += rows.numel();
  const Tensor& like = gradient.values.front();
  const Tensor rows = Tensor::empty({n}, DType::i64, like.device());
  const Tensor values = Tensor::empty({n, like.dim(1)}, like.dtype(), like.device());
  std::int64_t first = 0;
  for (std::size_t k = 0; k < gradient.rows.size(); ++k) {
    const std::int64_t end = first + gradient.rows[k].numel();
    rows.slice(first, end).copy_from(gradient.rows[k]);
    values.slice(first, end).copy_from(gradient.values[k]);
    first = end;
  }
  return {{rows}, {values}, {}};
}

}  // namespace

MergedRows merge_sparse(const SparseRows& gradient, std::int64_t bound) {
  if (gradient.rows.size() > kMostParts) return merge_sparse(joined(gradient), bound);
  const Segments segments = find_segments(gradient.rows, bound);
  const std::int64_t width = gradient.values.front().dim(1);
  MergedRows merged{
      segments.keys,
      Tensor::empty({segments.size(), width}, DType::f32, gradient.values.front().device()),
      segments.count};
  if (merged.values.numel() == 0) return merged;
  dispatch_cuda("merge_sparse", gradient.values.front().dtype(), [&]<class T>() {
    const bool packed =
        std::all_of(gradient.values.begin(), gradient.values.end(), [&](const Tensor& values) {
          return width % 4 == 0 &&
                 reinterpret_cast<std::uintptr_t>(values.raw()) % sizeof(Pack<T, 4>) == 0;
        });
    if (packed) {
      sum_values<T, 4>(gradient, segments, merged.values);
    } else {
      sum_values<T, 1>(gradient, segments, merged.values);
    }
  });
  return merged;
}

}  // namespace fulcrum::ops::cuda
