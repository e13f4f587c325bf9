#include <algorithm>

#include "framework/ops/dse_gate.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = kRowThreads;
constexpr int kTokensOfPart = 64;  // of the loop over memory
// Blocks of a multiprocessor at once, in backward.
template <class T, int kQuads>
constexpr int kResident = kQuads * sizeof(T) > 6 ? 2 : 3;

// dα/ds
__device__ float gate_slope(float s, float gate, bool signed_sqrt) {
  const float sigmoid = gate * (1.0f - gate);
  if (!signed_sqrt) return sigmoid;
  const float magnitude = fabsf(s);
  return magnitude < kRootFloor ? 0.0f : sigmoid / (2.0f * sqrtf(magnitude));
}

// What the gradients of a token's elements share.
struct Factors {
  float gate;
  float q;
  float to_hidden;
  float to_key;
};
__device__ Factors factors_of(const GateScore& score, float slope, int d, bool signed_sqrt) {
  const auto width = static_cast<float>(d);
  Factors f;
  f.gate = gate_of(score.s, signed_sqrt);
  const float ds = slope * gate_slope(score.s, f.gate, signed_sqrt);
  f.q = ds * score.hidden_rms * score.key_rms * rsqrtf(width);
  f.to_hidden = ds * score.s * score.hidden_rms * score.hidden_rms / width;
  f.to_key = ds * score.s * score.key_rms * score.key_rms / width;
  return f;
}

// A gradient buffer; data is null when the input wants no gradient.
template <class T>
struct Sink {
  T* data = nullptr;
  bool add = false;

  // One element, or four.
  __device__ void write(std::int64_t at, float value) const {
    if (data == nullptr) return;
    data[at] = from_float<T>(add ? to_float(data[at]) + value : value);
  }
  __device__ void write(std::int64_t at, float (&values)[kQuad]) const {
    if (data == nullptr) return;
    if (add) {
      const auto base = Quad<T>::load(data + at);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) values[j] += base[j];
    }
    Quad<T>::of(values).store(data + at);
  }
};

template <class T>
struct Sinks {
  Sink<T> hidden, key, value;
};

// Groups walk over the tokens with a fixed stride and sum the products on the way; the groups of a
// block then add theirs in order.
template <class T, int kQuads>
__global__ void __launch_bounds__(kThreads, kResident<T, kQuads>)
    backward_kernel(GateRows<T> rows, GateNorms norms, const T* gradient, const GateScore* scores,
                    std::int64_t tokens, int d, int lanes, bool signed_sqrt, Sinks<T> sinks,
                    float* partial) {
  extern __shared__ __align__(16) float shared[];  // norms' product [d], sums [d]
  float* const scale = shared;
  float* const block_sums = shared + d;
  for (int i = threadIdx.x; i < d; i += kThreads) scale[i] = norms.hidden[i] * norms.key[i];
  __syncthreads();
  const int lane = threadIdx.x % lanes;
  const int group = threadIdx.x / lanes;
  const int groups = kThreads / lanes;
  const int quads = d / kQuad;
  float products[kQuads * kQuad] = {};
  int parity = 0;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * groups; base < tokens;
       base += static_cast<std::int64_t>(gridDim.x) * groups, parity ^= 1) {
    const std::int64_t token = base + group;
    const bool live = token < tokens;
    GroupRow<T, kQuads> g, h, k, v;
    GateScore score{};
    if (live) {
      g.load(gradient + token * d, quads, lane, lanes);
      v.load(rows.value + token * d, quads, lane, lanes);
      h.load(rows.hidden + token * d, quads, lane, lanes);
      k.load(rows.key + token * d, quads, lane, lanes);
      score = scores[token];
    }
    float slope[1] = {};
#pragma unroll
    for (int p = 0; p < kQuads; ++p) {
      if (!live || p * lanes + lane >= quads) continue;
#pragma unroll
      for (int j = 0; j < kQuad; ++j) slope[0] += g.quads[p][j] * v.quads[p][j];
    }
    group_sums(slope, lanes, parity);
    if (!live) continue;
    const Factors f = factors_of(score, slope[0], d, signed_sqrt);
#pragma unroll
    for (int p = 0; p < kQuads; ++p) {
      const int i = p * lanes + lane;
      if (i >= quads) continue;
      const auto c = Quad<float>::load(scale + i * kQuad);
      const std::int64_t at = token * d + i * kQuad;
      float out[kQuad];
#pragma unroll
      for (int j = 0; j < kQuad; ++j) {
        out[j] = f.q * c[j] * k.quads[p][j] - f.to_hidden * h.quads[p][j];
      }
      sinks.hidden.write(at, out);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) {
        out[j] = f.q * c[j] * h.quads[p][j] - f.to_key * k.quads[p][j];
      }
      sinks.key.write(at, out);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) out[j] = f.gate * g.quads[p][j];
      sinks.value.write(at, out);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) {
        products[p * kQuad + j] += f.q * h.quads[p][j] * k.quads[p][j];
      }
    }
  }
  for (int turn = 0; turn < groups; ++turn) {
    if (group == turn) {
#pragma unroll
      for (int p = 0; p < kQuads; ++p) {
        const int i = p * lanes + lane;
        if (i >= quads) continue;
#pragma unroll
        for (int j = 0; j < kQuad; ++j) {
          float& sum = block_sums[i * kQuad + j];
          sum = turn == 0 ? products[p * kQuad + j] : sum + products[p * kQuad + j];
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < d; i += kThreads) {
    partial[static_cast<std::int64_t>(blockIdx.x) * d + i] = block_sums[i];
  }
}

// Also writes q of each token, for products_any_kernel.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_any_kernel(GateRows<T> rows, GateNorms norms, const T* gradient,
                        const GateScore* scores, int d, bool signed_sqrt, Sinks<T> sinks,
                        float* q) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * d;
  float slope[1] = {};
  for (int i = threadIdx.x; i < d; i += kThreads) {
    slope[0] += to_float(gradient[at + i]) * to_float(rows.value[at + i]);
  }
  group_sums(slope, kThreads, 0);
  const Factors f = factors_of(scores[blockIdx.x], slope[0], d, signed_sqrt);
  if (threadIdx.x == 0) q[blockIdx.x] = f.q;
  for (int i = threadIdx.x; i < d; i += kThreads) {
    const float c = f.q * norms.hidden[i] * norms.key[i];
    const float h = to_float(rows.hidden[at + i]);
    const float k = to_float(rows.key[at + i]);
    const float g = to_float(gradient[at + i]);
    sinks.hidden.write(at + i, c * k - f.to_hidden * h);
    sinks.key.write(at + i, c * h - f.to_key * k);
    sinks.value.write(at + i, f.gate * g);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    products_any_kernel(GateRows<T> rows, const float* q, std::int64_t tokens, int d,
                        float* partial) {
  const int column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= d) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTokensOfPart;
  const std::int64_t end = first + kTokensOfPart < tokens ? first + kTokensOfPart : tokens;
  float sum = 0.0f;
  for (std::int64_t t = first; t < end; ++t) {
    sum += q[t] * to_float(rows.hidden[t * d + column]) * to_float(rows.key[t * d + column]);
  }
  partial[static_cast<std::int64_t>(blockIdx.x) * d + column] = sum;
}

template <class T>
Tensor backward(const GateInputs& in, bool signed_sqrt, const GateScore* scores, const T* gradient,
                const Sinks<T>& sinks) {
  const std::int64_t tokens = in.hidden.dim(0);
  const int d = static_cast<int>(in.hidden.dim(1));
  const Device device = in.hidden.device();
  const GateRows<T> rows = rows_of<T>(in);
  const GateNorms norms = norms_of(in);
  const RowGroup group = row_group<T>(d, {rows.hidden, rows.key, rows.value, gradient,
                                          sinks.hidden.data, sinks.key.data, sinks.value.data});
  constexpr int kMostShared = 48 << 10;
  const std::int64_t shared = 2 * d * static_cast<std::int64_t>(sizeof(float));
  Tensor partial;
  if (group.lanes == 0 || shared > kMostShared) {
    const Tensor q = Tensor::empty({tokens}, DType::f32, device);
    backward_any_kernel<T><<<static_cast<unsigned>(tokens), kThreads, 0, compute_stream()>>>(
        rows, norms, gradient, scores, d, signed_sqrt, sinks, device_data<float>(q));
    FULCRUM_CUDA_LAUNCHED();
    const std::int64_t parts = ceil_div(tokens, kTokensOfPart);
    partial = Tensor::empty({parts, d}, DType::f32, device);
    const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(ceil_div(d, kThreads)));
    products_any_kernel<T><<<grid, kThreads, 0, compute_stream()>>>(
        rows, device_data<float>(q), tokens, d, device_data<float>(partial));
  } else {
    with_quads_of_lane(group, [&]<int kQuads>() {
      // A grid of the blocks that run at once walks over all tokens.
      const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(
          ceil_div(tokens, group.groups_of_block()), kResident<T, kQuads> * multiprocessors()));
      partial = Tensor::empty({blocks, d}, DType::f32, device);
      backward_kernel<T, kQuads><<<blocks, kThreads, shared, compute_stream()>>>(
          rows, norms, gradient, scores, tokens, d, group.lanes, signed_sqrt, sinks,
          device_data<float>(partial));
    });
  }
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

}  // namespace

Tensor dse_gate_backward(const GateInputs& in, bool signed_sqrt, const Tensor& scores,
                         const Tensor& gradient, const GradSlot::Target& d_hidden,
                         const GradSlot::Target& d_key, const GradSlot::Target& d_value) {
  if (gradient.numel() == 0) {
    return Tensor::empty({0, in.hidden.dim(1)}, DType::f32, in.hidden.device());
  }
  Tensor partial;
  dispatch_cuda("dse_gate", gradient.dtype(), [&]<class T>() {
    const auto sink = [](const GradSlot::Target& target) {
      return Sink<T>{device_data<T>(target.tensor), target.add};
    };
    partial = backward<T>(in, signed_sqrt, reinterpret_cast<const GateScore*>(scores.raw()),
                          device_data<T>(gradient), {sink(d_hidden), sink(d_key), sink(d_value)});
  });
  return partial;
}

}  // namespace fulcrum::ops::cuda
