#include <cub/device/device_radix_sort.cuh>

#include "framework/ops/router_cuda.h"
#include "framework/ops/warp_top_k.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
// A slot's key: its group; whether its token may be dropped; then the affinity, highest first. The
// sort is stable and starts in the order of slots, so that equal affinities favour the earlier.
constexpr int kGroupShift = 33;
constexpr int kDroppableShift = 32;

__global__ void make_keys_kernel(const float* scores, const std::int32_t* selected,
                                 const std::uint8_t* keep, int slots, int k, int experts,
                                 int per_group, std::uint64_t* keys, std::int32_t* order) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= slots) return;
  const int token = i / k;
  const int expert = selected[i];
  const float affinity = scores[static_cast<std::int64_t>(token) * experts + expert];
  const std::uint64_t droppable = keep == nullptr || keep[token] == 0;
  keys[i] = static_cast<std::uint64_t>(expert / per_group) << kGroupShift |
            droppable << kDroppableShift | static_cast<std::uint32_t>(~order_key(affinity));
  order[i] = i;
}

// First position whose key is at least `key`.
__device__ int lower_bound(const std::uint64_t* keys, int size, std::uint64_t key) {
  int begin = 0;
  int end = size;
  while (begin < end) {
    const int middle = begin + (end - begin) / 2;
    if (keys[middle] < key) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

__global__ void drop_kernel(const std::uint64_t* keys, const std::int32_t* order, int slots,
                            std::int64_t capacity, std::int32_t* experts, float* weights,
                            unsigned long long* dropped) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  bool drop = false;
  if (i < slots) {
    const std::uint64_t key = keys[i];
    const int begin = lower_bound(keys, slots, key >> kGroupShift << kGroupShift);
    drop = (key >> kDroppableShift & 1) != 0 && i - begin >= capacity;
    if (drop) {
      experts[order[i]] = -1;
      weights[order[i]] = 0.0f;
    }
  }
  const int count = __syncthreads_count(drop);
  if (threadIdx.x == 0 && count > 0) atomicAdd(dropped, static_cast<unsigned long long>(count));
}

int bits_for(std::int64_t values) {
  int bits = 0;
  while ((std::int64_t{1} << bits) < values) ++bits;
  return bits;
}

}  // namespace

void drop_lowest(const Tensor& selected, std::int64_t capacity, const RouterOptions& options,
                 const Routing& r) {
  FULCRUM_REQUIRE(selected.numel() < (std::int64_t{1} << 31),
                  "route: CUDA drops among fewer than 2^31 slots; got {}", selected.shape());
  const auto slots = static_cast<int>(selected.numel());
  if (slots == 0) return;
  const auto experts = static_cast<int>(r.scores.dim(1));
  const Device device = selected.device();
  const auto blocks = static_cast<unsigned>(ceil_div(slots, kThreads));
  // i64 in the tensor's words, unsigned in the kernel's
  const Tensor keys = Tensor::empty({2, slots}, DType::i64, device);
  const Tensor order = Tensor::empty({2, slots}, DType::i32, device);
  auto* key = reinterpret_cast<std::uint64_t*>(device_data<std::int64_t>(keys));
  auto* slot = device_data<std::int32_t>(order);
  make_keys_kernel<<<blocks, kThreads, 0, compute_stream()>>>(
      device_data<float>(r.scores), device_data<std::int32_t>(selected),
      device_data<std::uint8_t>(options.keep), slots, static_cast<int>(options.top_k), experts,
      experts / static_cast<int>(options.groups), key, slot);
  FULCRUM_CUDA_LAUNCHED();

  const auto sort = [&](void* scratch, std::size_t& bytes) {
    FULCRUM_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(
        scratch, bytes, key, key + slots, slot, slot + slots, slots, 0,
        kGroupShift + bits_for(options.groups), compute_stream()));
  };
  std::size_t bytes = 0;
  sort(nullptr, bytes);
  const Tensor scratch = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, device);
  sort(scratch.raw(), bytes);

  drop_kernel<<<blocks, kThreads, 0, compute_stream()>>>(
      key + slots, slot + slots, slots, capacity, device_data<std::int32_t>(r.experts),
      device_data<float>(r.weights),
      reinterpret_cast<unsigned long long*>(device_data<std::int64_t>(r.dropped)));
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace fulcrum::ops::cuda
