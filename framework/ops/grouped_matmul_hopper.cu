#include "framework/core/tensor_map.h"
#include "framework/ops/grouped_matmul_hopper.cuh"

namespace fulcrum::ops::cuda {
namespace {

template <Form kForm, class Out, int kTileColumns, Teams kTeams>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b) {
  using L = GroupedLayout<kForm, Out, kTileColumns, kTeams>;
  static const cudaError_t ready = cudaFuncSetAttribute(
      grouped_kernel<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kSharedBytes);
  FULCRUM_CUDA_CHECK(ready);
  grouped_kernel<L><<<multiprocessors(), L::kThreads, L::kSharedBytes, compute_stream()>>>(p, a, b);
  FULCRUM_CUDA_LAUNCHED();
}

template <Form kForm, class Out>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b,
            GroupedTiles tiles) {
  switch (tiles) {
    case GroupedTiles::shared_256:
      return launch<kForm, Out, 256, Teams::shared>(p, a, b);
    case GroupedTiles::own_128:
      return launch<kForm, Out, 128, Teams::own>(p, a, b);
    default:
      return launch<kForm, Out, 192, Teams::own>(p, a, b);
  }
}

}  // namespace

bool has_grouped_product_hopper() {
  static const bool has = [] {
    int device = 0;
    int major = 0;
    FULCRUM_CUDA_CHECK(cudaGetDevice(&device));
    FULCRUM_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    // A build without sm_90a code runs there from the code of an older chip.
    cudaFuncAttributes attributes;
    FULCRUM_CUDA_CHECK(cudaFuncGetAttributes(
        &attributes, grouped_kernel<GroupedLayout<Form::forward, __nv_bfloat16, 192, Teams::own>>));
    return major == 9 && attributes.ptxVersion == 90;
  }();
  return has;
}

void grouped_product_hopper(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b,
                            DType out, GroupedTiles tiles) {
  const auto map = [](const Tensor& x) {
    const bool matrix = x.rank() == 2;
    return tensor_map(x.raw(), x.dim(-1), x.dim(matrix ? 0 : 1), matrix ? 1 : x.dim(0));
  };
  const CUtensorMap map_a = map(a);
  const CUtensorMap map_b = map(b);
  switch (form) {
    case Form::forward:
      return launch<Form::forward, __nv_bfloat16>(p, map_a, map_b, tiles);
    case Form::input:
      return launch<Form::input, __nv_bfloat16>(p, map_a, map_b, tiles);
    case Form::weight:
      if (out == DType::f32) return launch<Form::weight, float>(p, map_a, map_b, tiles);
      return launch<Form::weight, __nv_bfloat16>(p, map_a, map_b, tiles);
  }
}

}  // namespace fulcrum::ops::cuda
