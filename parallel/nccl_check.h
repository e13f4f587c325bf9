#pragma once
// FULCRUM_NCCL(ncclAllReduce(…)): throws InternalError with the call's text and NCCL's own message.
// For CUDA sources only.

#include <nccl.h>

#include "framework/core/error.h"

#define FULCRUM_NCCL(call)                                                                        \
  do {                                                                                            \
    if (const ncclResult_t nccl_result = (call); nccl_result != ncclSuccess)                      \
      ::fulcrum::throw_internal(                                                                  \
          #call, __FILE__, __LINE__,                                                              \
          FULCRUM_FORMAT("{} ({})", ncclGetErrorString(nccl_result), ncclGetLastError(nullptr))); \
  } while (0)
