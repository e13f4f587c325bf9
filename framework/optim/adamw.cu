#include <type_traits>

#include "framework/optim/adamw_cuda.h"
#include "framework/optim/tensor_list.cuh"

namespace fulcrum::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;     // elements of a pack: 16 bytes
constexpr int kInFlight = 2;  // packs that a thread loads before it computes
constexpr int kChunk = 4 * kThreads * kWidth;

// What entries hold to round moments: nothing for f32.
struct Exact {};
template <class Moment>
using RoundingOf = std::conditional_t<sizeof(Moment) == 2, RoundingDraws, Exact>;

template <class Moment>
struct Entry : RoundingOf<Moment> {
  float* weight;
  Moment* first;
  Moment* second;
  const float* gradient;  // null: zero
  __nv_bfloat16* value;   // null: not rounded
  std::int64_t count;
  float keep;
  int first_chunk;

  __device__ bool aligned() const {
    const auto bits = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
    return (bits(weight) | bits(gradient)) % 16 == 0 &&
           (bits(first) | bits(second)) % (kWidth * sizeof(Moment)) == 0 && bits(value) % 8 == 0;
  }
};

// Every byte is used once a step: it need not stay in the cache.
template <class T>
struct Pack4;

template <>
struct Pack4<float> {
  float x[kWidth];
  __device__ void load(const float* p) {
    const float4 v = __ldcs(reinterpret_cast<const float4*>(p));
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
  }
  __device__ void store(float* p) const {
    __stcs(reinterpret_cast<float4*>(p), make_float4(x[0], x[1], x[2], x[3]));
  }
};

// Stays as it is read until it is used, so that loads do not wait for each other.
template <>
struct Pack4<__nv_bfloat16> {
  uint2 pairs;
  __device__ void load(const __nv_bfloat16* p) {
    pairs = __ldcs(reinterpret_cast<const uint2*>(p));
  }
  __device__ void store(__nv_bfloat16* p) const { __stcs(reinterpret_cast<uint2*>(p), pairs); }
};

__device__ inline Pack4<float> unpack(const Pack4<float>& pack) { return pack; }
__device__ inline Pack4<float> unpack(const Pack4<__nv_bfloat16>& pack) {
  const auto low = [](unsigned pair) { return __uint_as_float(pair << 16); };
  const auto high = [](unsigned pair) { return __uint_as_float(pair & 0xffff0000u); };
  return {{low(pack.pairs.x), high(pack.pairs.x), low(pack.pairs.y), high(pack.pairs.y)}};
}

// Moments of elements i.. of an entry, as they are kept.
__device__ inline void pack(const Exact&, std::int64_t, const Pack4<float>& m,
                            const Pack4<float>& v, Pack4<float>& kept_m, Pack4<float>& kept_v) {
  kept_m = m;
  kept_v = v;
}
__device__ inline void pack(const RoundingDraws& draws, std::int64_t i, const Pack4<float>& m,
                            const Pack4<float>& v, Pack4<__nv_bfloat16>& kept_m,
                            Pack4<__nv_bfloat16>& kept_v) {
  std::uint32_t a[kWidth], b[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const std::uint32_t random = draws(i + j);
    a[j] = round_stochastically(m.x[j], random & 0xffffu);
    b[j] = round_stochastically(v.x[j], random >> 16);
  }
  kept_m.pairs = make_uint2(a[0] | (a[1] << 16), a[2] | (a[3] << 16));
  kept_v.pairs = make_uint2(b[0] | (b[1] << 16), b[2] | (b[3] << 16));
}

__device__ inline void keep(const Exact&, std::int64_t, float m, float v, float& kept_m,
                            float& kept_v) {
  kept_m = m;
  kept_v = v;
}
__device__ inline void keep(const RoundingDraws& draws, std::int64_t i, float m, float v,
                            __nv_bfloat16& kept_m, __nv_bfloat16& kept_v) {
  const std::uint32_t random = draws(i);
  kept_m = __ushort_as_bfloat16(round_stochastically(m, random & 0xffffu));
  kept_v = __ushort_as_bfloat16(round_stochastically(v, random >> 16));
}

template <class Moment, class List>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const __grid_constant__ List list, AdamConstants<float> constants) {
  const Entry<Moment>& entry = list.entries[list.index_of(static_cast<int>(blockIdx.x))];
  constants.keep = entry.keep;
  const RoundingOf<Moment> rounding = entry;
  const std::int64_t start = static_cast<std::int64_t>(blockIdx.x - entry.first_chunk) * kChunk;
  const int n = entry.count - start < kChunk ? static_cast<int>(entry.count - start) : kChunk;
  float* const weight = entry.weight + start;
  Moment* const first = entry.first + start;
  Moment* const second = entry.second + start;
  const float* const gradient = entry.gradient == nullptr ? nullptr : entry.gradient + start;
  __nv_bfloat16* const value = entry.value == nullptr ? nullptr : entry.value + start;

  const int packs = entry.aligned() ? n / kWidth : 0;
  for (int pack_index = threadIdx.x; pack_index < packs; pack_index += kInFlight * kThreads) {
    Pack4<float> w[kInFlight], g[kInFlight] = {};
    Pack4<Moment> m[kInFlight], v[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = (pack_index + k * kThreads) * kWidth;
      if (i >= packs * kWidth) continue;
      if (gradient != nullptr) g[k].load(gradient + i);
      w[k].load(weight + i);
      m[k].load(first + i);
      v[k].load(second + i);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      const int i = (pack_index + k * kThreads) * kWidth;
      if (i >= packs * kWidth) continue;
      Pack4<float> new_m = unpack(m[k]), new_v = unpack(v[k]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        adam_element(constants, g[k].x[j], w[k].x[j], new_m.x[j], new_v.x[j]);
      }
      pack(rounding, start + i, new_m, new_v, m[k], v[k]);
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
    float w = weight[i], m = to_float(first[i]), v = to_float(second[i]);
    adam_element(constants, gradient == nullptr ? 0.0f : gradient[i], w, m, v);
    weight[i] = w;
    keep(rounding, start + i, m, v, first[i], second[i]);
    if (value != nullptr) value[i] = from_float<__nv_bfloat16>(w);
  }
}

RoundingDraws rounding_of(const AdamTensors& t, const __nv_bfloat16*) { return t.draws; }
Exact rounding_of(const AdamTensors&, const float*) { return {}; }

// Those of the list whose moments are of this type.
template <class Moment>
void run(const std::vector<AdamTensors>& list, const AdamConstants<float>& constants) {
  std::vector<Entry<Moment>> entries;
  for (const AdamTensors& t : list) {
    if (t.first.dtype() != dtype_of<Moment>) continue;
    const Parameter& p = t.parameter;
    const Tensor rows =
        p.value.slice(p.master_rows.first, p.master_rows.first + p.master_rows.count);
    auto* const first = device_data<Moment>(t.first);
    entries.push_back({rounding_of(t, first), device_data<float>(p.master), first,
                       device_data<Moment>(t.second), device_data<float>(t.gradient),
                       p.rounded() ? device_data<__nv_bfloat16>(rows) : nullptr, p.master.numel(),
                       static_cast<float>(t.keep), 0});
  }
  for_each_list(std::move(entries), kChunk, [&](const auto& tensors, unsigned chunks) {
    adam_kernel<Moment><<<chunks, kThreads, 0, compute_stream()>>>(tensors, constants);
  });
}

}  // namespace

void adam(const std::vector<AdamTensors>& list, const AdamConstants<float>& constants) {
  run<float>(list, constants);
  run<__nv_bfloat16>(list, constants);
}

}  // namespace fulcrum::cuda
