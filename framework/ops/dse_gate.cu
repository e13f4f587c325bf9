#include "framework/ops/dse_gate.cuh"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = kRowThreads;

// Four sums over a token: hidden², key², hidden·key·norms, value².
struct Outcome {
  GateScore score;
  float gate;
  float square_mean;
};
__device__ Outcome outcome_of(const float (&sums)[4], int d, float eps, bool signed_sqrt) {
  const auto width = static_cast<float>(d);
  Outcome o;
  o.score.hidden_rms = rsqrtf(sums[0] / width + eps);
  o.score.key_rms = rsqrtf(sums[1] / width + eps);
  o.score.s = sums[2] * o.score.hidden_rms * o.score.key_rms * rsqrtf(width);
  o.gate = gate_of(o.score.s, signed_sqrt);
  o.square_mean = o.gate * o.gate * sums[3] / width;
  return o;
}

struct Statistics {
  GateScore* scores;
  float* gate;
  float* square_means;

  __device__ void store(std::int64_t token, const Outcome& o) const {
    scores[token] = o.score;
    gate[token] = o.gate;
    square_means[token] = o.square_mean;
  }
};

template <class T, int kQuads>
__global__ void __launch_bounds__(kThreads, 3)
    forward_kernel(GateRows<T> rows, GateNorms norms, std::int64_t tokens, int d, int lanes,
                   float eps, bool signed_sqrt, T* out, Statistics statistics) {
  const int lane = threadIdx.x % lanes;
  const int quads = d / kQuad;
  const std::int64_t token =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / lanes) + threadIdx.x / lanes;
  const bool live = token < tokens;
  GroupRow<T, kQuads> h, k, v;
  if (live) {
    h.load(rows.hidden + token * d, quads, lane, lanes);
    k.load(rows.key + token * d, quads, lane, lanes);
    v.load(rows.value + token * d, quads, lane, lanes);
  }
  float sums[4] = {};
#pragma unroll
  for (int p = 0; p < kQuads; ++p) {
    const int i = p * lanes + lane;
    if (!live || i >= quads) continue;
    const auto a = Quad<float>::load(norms.hidden + i * kQuad);
    const auto b = Quad<float>::load(norms.key + i * kQuad);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const float x = h.quads[p][j];
      const float y = k.quads[p][j];
      const float z = v.quads[p][j];
      sums[0] += x * x;
      sums[1] += y * y;
      sums[2] += x * y * (a[j] * b[j]);
      sums[3] += z * z;
    }
  }
  group_sums(sums, lanes, 0);
  if (!live) return;
  const Outcome o = outcome_of(sums, d, eps, signed_sqrt);
  if (lane == 0) statistics.store(token, o);
#pragma unroll
  for (int p = 0; p < kQuads; ++p) {
    const int i = p * lanes + lane;
    if (i >= quads) continue;
    float y[kQuad];
#pragma unroll
    for (int j = 0; j < kQuad; ++j) y[j] = o.gate * v.quads[p][j];
    Quad<T>::of(y).store(out + token * d + i * kQuad);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_any_kernel(GateRows<T> rows, GateNorms norms, int d, float eps, bool signed_sqrt,
                       T* out, Statistics statistics) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * d;
  float sums[4] = {};
  for (int i = threadIdx.x; i < d; i += kThreads) {
    const float x = to_float(rows.hidden[at + i]);
    const float y = to_float(rows.key[at + i]);
    const float z = to_float(rows.value[at + i]);
    sums[0] += x * x;
    sums[1] += y * y;
    sums[2] += x * y * (norms.hidden[i] * norms.key[i]);
    sums[3] += z * z;
  }
  group_sums(sums, kThreads, 0);
  const Outcome o = outcome_of(sums, d, eps, signed_sqrt);
  if (threadIdx.x == 0) statistics.store(blockIdx.x, o);
  for (int i = threadIdx.x; i < d; i += kThreads) {
    out[at + i] = from_float<T>(o.gate * to_float(rows.value[at + i]));
  }
}

template <class T>
void forward(const GateInputs& in, float eps, bool signed_sqrt, const Statistics& statistics,
             T* out) {
  const std::int64_t tokens = in.hidden.dim(0);
  const int d = static_cast<int>(in.hidden.dim(1));
  const GateRows<T> rows = rows_of<T>(in);
  const GateNorms norms = norms_of(in);
  const RowGroup group = row_group<T>(d, {rows.hidden, rows.key, rows.value, out});
  if (group.lanes == 0) {
    forward_any_kernel<T><<<static_cast<unsigned>(tokens), kThreads, 0, compute_stream()>>>(
        rows, norms, d, eps, signed_sqrt, out, statistics);
  } else {
    with_quads_of_lane(group, [&]<int kQuads>() {
      const auto blocks = static_cast<unsigned>(ceil_div(tokens, group.groups_of_block()));
      forward_kernel<T, kQuads><<<blocks, kThreads, 0, compute_stream()>>>(
          rows, norms, tokens, d, group.lanes, eps, signed_sqrt, out, statistics);
    });
  }
  FULCRUM_CUDA_LAUNCHED();
}

}  // namespace

void dse_gate(const GateInputs& in, double eps, bool signed_sqrt, const Tensor& scores,
              const Tensor& out, const Tensor& gate, const Tensor& square_means) {
  if (out.numel() == 0) return;
  const Statistics statistics{reinterpret_cast<GateScore*>(device_data<float>(scores)),
                              device_data<float>(gate), device_data<float>(square_means)};
  dispatch_cuda("dse_gate", out.dtype(), [&]<class T>() {
    forward<T>(in, static_cast<float>(eps), signed_sqrt, statistics, device_data<T>(out));
  });
}

}  // namespace fulcrum::ops::cuda
