#pragma once
// A sum of rows, of which a thread holds kN neighbouring columns.

#include "framework/core/cuda_kernel.cuh"

namespace fulcrum::ops::cuda {

template <int kN>
struct PackSum {
  Pack<float, kN> values;

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kN; ++i) values.values[i] = 0.0f;
  }
  // Or starts anew.
  template <class T>
  __device__ void add(const Pack<T, kN>& row, bool anew = false) {
#pragma unroll
    for (int i = 0; i < kN; ++i) values.values[i] = anew ? row[i] : values.values[i] + row[i];
  }
  // Adds to what is there, if asked to.
  __device__ void store(float* p, bool add_to = false) {
    if (add_to) add(Pack<float, kN>::load(p));
    values.store(p);
  }
};

}  // namespace fulcrum::ops::cuda
