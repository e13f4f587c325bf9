#pragma once
// FULCRUM_CUDA_CHECK(cudaMemcpyAsync(…)): throws InternalError with CUDA's own name and text of the
// error.

#include <cuda_runtime_api.h>

#include "framework/core/error.h"

#define FULCRUM_CUDA_CHECK(call)                                                                   \
  do {                                                                                             \
    const cudaError_t cuda_check_result = (call);                                                  \
    FULCRUM_CHECK(cuda_check_result == cudaSuccess, "{}: {}", cudaGetErrorName(cuda_check_result), \
                  cudaGetErrorString(cuda_check_result));                                          \
  } while (0)
