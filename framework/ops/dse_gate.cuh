#pragma once
// What dse_gate.cu (forward) and dse_gate_backward.cu share.

#include "framework/core/cuda_row.cuh"
#include "framework/ops/dse_gate_cuda.h"

namespace fulcrum::ops::cuda {

struct GateScore {
  float s;           // before the root
  float hidden_rms;  // 1 / √(mean(hidden²) + eps)
  float key_rms;
};

constexpr float kRootFloor = 1e-6f;

__device__ inline float gate_of(float s, bool signed_sqrt) {
  const float magnitude = sqrtf(fmaxf(fabsf(s), kRootFloor));
  const float r = !signed_sqrt ? s : s > 0.0f ? magnitude : s < 0.0f ? -magnitude : 0.0f;
  return 1.0f / (1.0f + expf(-r));
}

template <class T>
struct GateRows {
  const T* hidden;
  const T* key;
  const T* value;
};

struct GateNorms {
  const float* hidden;
  const float* key;
};

template <class T>
GateRows<T> rows_of(const GateInputs& in) {
  return {device_data<T>(in.hidden), device_data<T>(in.key), device_data<T>(in.value)};
}

inline GateNorms norms_of(const GateInputs& in) {
  return {device_data<float>(in.hidden_norm), device_data<float>(in.key_norm)};
}

}  // namespace fulcrum::ops::cuda
