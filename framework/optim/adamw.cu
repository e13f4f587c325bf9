#include "framework/optim/adamw_cuda.h"
#include "framework/optim/tensor_list.cuh"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;     // elements of a pack: 16 bytes
constexpr int kInFlight = 2;  // packs that a thread loads before it computes
constexpr int kChunk = 4 * kThreads * kWidth;

struct Entry {
  float* weight;
  float* first;
  float* second;
  const float* gradient;  // null: zero
  __nv_bfloat16* value;   // null: not rounded
  std::int64_t count;
  float keep;
  int first_chunk;

  __device__ bool aligned() const {
    const auto bits = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
    return (bits(weight) | bits(first) | bits(second) | bits(gradient)) % 16 == 0 &&
           bits(value) % 8 == 0;
  }
};

// Every byte is used once a step: it need not stay in the cache.
struct Pack4 {
  float x[kWidth];
  __device__ void load(const float* p) {
    const float4 v = __ldcs(reinterpret_cast<const float4*>(p));
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
  }
  __device__ void store(float* p) const {
    __stcs(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
  }
};

template <class List>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const __grid_constant__ List list, AdamConstants<float> constants) {
  const Entry& entry = list.entries[list.index_of(static_cast<int>(blockIdx.x))];
  constants.keep = entry.keep;
  const std::int64_t start = static_cast<std::int64_t>(blockIdx.x - entry.first_chunk) * kChunk;
  const int n = entry.count - start < kChunk ? static_cast<int>(entry.count - start) : kChunk;
  float* const weight = entry.weight + start;
  float* const first = entry.first + start;
  float* const second = entry.second + start;
  const float* const gradient = entry.gradient == nullptr ? nullptr : entry.gradient + start;
  __nv_bfloat16* const value = entry.value == nullptr ? nullptr : entry.value + start;

  const int packs = entry.aligned() ? n / kWidth : 0;
  for (int pack = threadIdx.x; pack < packs; pack += kInFlight * kThreads) {
    Pack4 w[kInFlight], m[kInFlight], v[kInFlight], g[kInFlight] = {};
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = (pack + k * kThreads) * kWidth;
      if (i >= packs * kWidth) continue;
      if (gradient != nullptr) g[k].load(gradient + i);
      w[k].load(weight + i);
      m[k].load(first + i);
      v[k].load(second + i);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = (pack + k * kThreads) * kWidth;
      if (i >= packs * kWidth) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        adam_element(constants, g[k].x[j], w[k].x[j], m[k].x[j], v[k].x[j]);
      }
      w[k].store(weight + i);
      m[k].store(first + i);
      v[k].store(second + i);
      if (value == nullptr) continue;
      Pack<__nv_bfloat16, kWidth> rounded;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) rounded.set(j, w[k].x[j]);
      rounded.store(value + i);
    }
  }
  for (int i = packs * kWidth + threadIdx.x; i < n; i += kThreads) {
    float w = weight[i], m = first[i], v = second[i];
    adam_element(constants, gradient == nullptr ? 0.0f : gradient[i], w, m, v);
    weight[i] = w;
    first[i] = m;
    second[i] = v;
    if (value != nullptr) value[i] = from_float<__nv_bfloat16>(w);
  }
}

}  // namespace

void adam(const std::vector<AdamTensors>& list, const AdamConstants<float>& constants) {
  std::vector<Entry> entries;
  for (const AdamTensors& t : list) {
    const Parameter& p = t.parameter;
    const Tensor rows =
        p.value.slice(p.master_rows.first, p.master_rows.first + p.master_rows.count);
    entries.push_back({device_data<float>(p.master), device_data<float>(t.first),
                       device_data<float>(t.second), device_data<float>(t.gradient),
                       p.rounded() ? device_data<__nv_bfloat16>(rows) : nullptr, p.master.numel(),
                       static_cast<float>(t.keep), 0});
  }
  for_each_list(std::move(entries), kChunk, [&](const auto& tensors, unsigned chunks) {
    adam_kernel<<<chunks, kThreads, 0, compute_stream()>>>(tensors, constants);
  });
}

}  // namespace fulcrum::cuda
