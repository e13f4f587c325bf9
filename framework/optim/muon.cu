#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "framework/optim/matrices.h"
#include "framework/optim/muon_cuda.h"
#include "framework/optim/newton_schulz_cuda.h"
#include "framework/optim/tensor_list.cuh"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;
constexpr int kChunk = 4 * kThreads * kPack;
// Elements of the matrices that are orthogonalised together: enough to fill the device, few enough
// for their scratch (two copies and three squares, bf16) to be small beside the parameters.
constexpr std::int64_t kBatchElements = std::int64_t{1} << 25;

// One matrix.
struct Entry {
  float* weight;
  float* momentum;
  const float* gradient;  // null: zero
  __nv_bfloat16* value;   // null: not rounded
  std::int64_t count;
  int first_chunk;
};

struct Constants {
  float keep, take;  // of momentum and gradient
  bool nesterov;
  float decay;  // of weights
  float size;   // of an update
};

// What a block works on.
struct Chunk {
  int matrix;
  std::int64_t start;
  int count;
  bool aligned;  // but for the packed matrices

  template <class List>
  __device__ explicit Chunk(const List& list)
      : matrix(list.index_of(static_cast<int>(blockIdx.x))) {
    const Entry& entry = list.entries[matrix];
    start = static_cast<std::int64_t>(blockIdx.x - entry.first_chunk) * kChunk;
    count = entry.count - start < kChunk ? static_cast<int>(entry.count - start) : kChunk;
    const auto bits = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
    aligned = (bits(entry.weight) | bits(entry.momentum) | bits(entry.gradient)) % 16 == 0 &&
              bits(entry.value) % 8 == 0;
  }

  // Calls fn.template operator()<width>(element) for packs of elements, then for single ones.
  template <class Fn>
  __device__ void for_each(bool wide, Fn fn) const {
    const int packs = wide ? count / kPack : 0;
    for (int i = threadIdx.x; i < packs; i += kThreads) {
      fn.template operator()<kPack>(start + i * kPack);
    }
    for (int i = packs * kPack + threadIdx.x; i < count; i += kThreads) {
      fn.template operator()<1>(start + i);
    }
  }
};

template <int kWidth>
__device__ Pack<float, kWidth> gradient_at(const Entry& entry, std::int64_t i) {
  if (entry.gradient == nullptr) return {};
  return Pack<float, kWidth>::load(entry.gradient + i);
}

__device__ float direction(const Constants& c, float momentum, float gradient) {
  return c.nesterov ? c.keep * momentum + c.take * gradient : momentum;
}

// Writes the momentum; partial[block] = Σ u² of its chunk.
template <class List>
__global__ void __launch_bounds__(kThreads)
    momentum_kernel(const __grid_constant__ List list, Constants c, float* partial) {
  const Chunk chunk(list);
  const Entry& entry = list.entries[chunk.matrix];
  float sum = 0.0f;
  chunk.for_each(chunk.aligned, [&]<int kWidth>(std::int64_t i) {
    const auto g = gradient_at<kWidth>(entry, i);
    auto m = Pack<float, kWidth>::load(entry.momentum + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      m.set(k, c.keep * m[k] + c.take * g[k]);
      const float u = direction(c, m[k], g[k]);
      sum += u * u;
    }
    m.store(entry.momentum + i);
  });
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// inverse[matrix] = 1 / ‖u‖, 0 for a zero matrix.
__global__ void __launch_bounds__(kThreads)
    norm_kernel(const float* partial, int chunks, float* inverse) {
  const float* const mine = partial + static_cast<std::int64_t>(blockIdx.x) * chunks;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < chunks; i += kThreads) sum += mine[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) inverse[blockIdx.x] = sum > 0.0f ? 1.0f / sqrtf(sum) : 0.0f;
}

// packed[matrix] = u / ‖u‖
template <class T, class List>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(const __grid_constant__ List list, Constants c, const float* inverse, T* packed) {
  const Chunk chunk(list);
  const Entry& entry = list.entries[chunk.matrix];
  const float scale = inverse[chunk.matrix];
  T* const out = packed + chunk.matrix * entry.count;
  chunk.for_each(chunk.aligned && entry.count % kPack == 0, [&]<int kWidth>(std::int64_t i) {
    const auto g = gradient_at<kWidth>(entry, i);
    const auto m = Pack<float, kWidth>::load(entry.momentum + i);
    Pack<T, kWidth> u;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) u.set(k, direction(c, m[k], g[k]) * scale);
    u.store(out + i);
  });
}

template <class T, class List>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(const __grid_constant__ List list, Constants c, const T* packed) {
  const Chunk chunk(list);
  const Entry& entry = list.entries[chunk.matrix];
  const T* const update = packed + chunk.matrix * entry.count;
  chunk.for_each(chunk.aligned && entry.count % kPack == 0, [&]<int kWidth>(std::int64_t i) {
    const auto u = Pack<T, kWidth>::load(update + i);
    auto w = Pack<float, kWidth>::load(entry.weight + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) w.set(k, c.decay * w[k] - c.size * u[k]);
    w.store(entry.weight + i);
    if (entry.value == nullptr) return;
    Pack<__nv_bfloat16, kWidth> rounded;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) rounded.set(k, w[k]);
    rounded.store(entry.value + i);
  });
}

template <class T>
void step(const std::vector<Entry>& entries, std::int64_t rows, std::int64_t cols,
          const MuonOptions& options, const Constants& c, Device device) {
  const auto matrices = static_cast<std::int64_t>(entries.size());
  const std::int64_t chunks = ceil_div(rows * cols, kChunk);
  const Tensor partial = Tensor::empty({matrices * chunks}, DType::f32, device);
  const Tensor inverse = Tensor::empty({matrices}, DType::f32, device);
  const Tensor packed = Tensor::empty({matrices, rows, cols}, dtype_of<T>, device);
  for_each_list(entries, kChunk, [&](const auto& list, unsigned blocks) {
    momentum_kernel<<<blocks, kThreads, 0, compute_stream()>>>(list, c,
                                                               device_data<float>(partial));
  });
  norm_kernel<<<static_cast<unsigned>(matrices), kThreads, 0, compute_stream()>>>(
      device_data<float>(partial), static_cast<int>(chunks), device_data<float>(inverse));
  FULCRUM_CUDA_LAUNCHED();
  for_each_list(entries, kChunk, [&](const auto& list, unsigned blocks) {
    pack_kernel<<<blocks, kThreads, 0, compute_stream()>>>(list, c, device_data<float>(inverse),
                                                           device_data<T>(packed));
  });
  const Tensor update = orthogonalize(packed, options.iterations);
  for_each_list(entries, kChunk, [&](const auto& list, unsigned blocks) {
    apply_kernel<<<blocks, kThreads, 0, compute_stream()>>>(list, c, device_data<T>(update));
  });
}

// What is orthogonalised together.
struct Group {
  std::int64_t rows, cols;
  bool rounded;
  auto operator<=>(const Group&) const = default;
};

}  // namespace

void muon(const std::vector<MuonTensors>& list, const MuonOptions& options, double lr,
          double gradient_scale) {
  std::map<Group, std::vector<Entry>> groups;
  for (const MuonTensors& t : list) {
    const Parameter& p = t.parameter;
    const Tensor value =
        p.value.slice(p.master_rows.first, p.master_rows.first + p.master_rows.count);
    const float* gradient = device_data<float>(t.gradient);
    for (const auto& [offset, rows, cols] : matrices_of(p)) {
      groups[{rows, cols, p.rounded()}].push_back(
          {device_data<float>(p.master) + offset, device_data<float>(t.momentum) + offset,
           gradient == nullptr ? nullptr : gradient + offset,
           p.rounded() ? device_data<__nv_bfloat16>(value) + offset : nullptr, rows * cols, 0});
    }
  }
  for (const auto& [group, entries] : groups) {
    const double large = static_cast<double>(std::max(group.rows, group.cols));
    const Constants constants{static_cast<float>(options.momentum),
                              static_cast<float>((1.0 - options.momentum) * gradient_scale),
                              options.nesterov, static_cast<float>(1.0 - lr * options.weight_decay),
                              static_cast<float>(lr * options.update_rms * std::sqrt(large))};
    // All matrices of a batch fit into one launch: chunks are numbered through.
    const auto most = static_cast<std::size_t>(std::clamp<std::int64_t>(
        kBatchElements / (group.rows * group.cols), 1, kMostEntries<Entry>));
    for (std::size_t begin = 0; begin < entries.size(); begin += most) {
      const std::vector<Entry> batch(
          entries.begin() + static_cast<std::ptrdiff_t>(begin),
          entries.begin() + static_cast<std::ptrdiff_t>(std::min(entries.size(), begin + most)));
      const Device device = list.front().momentum.device();
      if (group.rounded) {
        step<__nv_bfloat16>(batch, group.rows, group.cols, options, constants, device);
      } else {
        step<float>(batch, group.rows, group.cols, options, constants, device);
      }
    }
  }
}

}  // namespace fulcrum::cuda
