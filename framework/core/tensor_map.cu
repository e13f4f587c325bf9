#include "framework/core/cuda_check.h"
#include "framework/core/tensor_map.h"

namespace fulcrum {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: programs need not link the driver.
Encode encoder() {
  static const Encode encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    FULCRUM_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                        cudaEnableDefault, &found));
    FULCRUM_CHECK(found == cudaDriverEntryPointSuccess && entry != nullptr,
                  "this driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(entry);
  }();
  return encode;
}

}  // namespace

CUtensorMap tensor_map(const void* data, std::int64_t width, std::int64_t height,
                       std::int64_t depth) {
  CUtensorMap map;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(height),
                               static_cast<cuuint64_t>(depth)};
  const cuuint64_t strides[2] = {sizes[0] * 2, sizes[0] * sizes[1] * 2};
  const cuuint32_t box[3] = {64, 64, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes, strides,
                box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  FULCRUM_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled of [{}, {}, {}]: error {}", depth,
                height, width, static_cast<int>(result));
  return map;
}

}  // namespace fulcrum
