#include "framework/core/tensor_map.h"
#include "framework/ops/grouped_matmul_hopper.cuh"

namespace fulcrum::ops::cuda {
namespace {

template <Form kForm, int kTileColumns, bool kShared>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b) {
  using Kernel = GroupedKernel<kForm, kTileColumns, kShared>;
  const auto kernel = grouped_kernel<kForm, kTileColumns, kShared>;
  static const bool ready = [&] {
    FULCRUM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Kernel::kSharedBytes));
    return true;
  }();
  static_cast<void>(ready);
  kernel<<<multiprocessors(), Kernel::kThreads, Kernel::kSharedBytes, compute_stream()>>>(p, a, b);
  FULCRUM_CUDA_LAUNCHED();
}

template <Form kForm>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b,
            GroupedTiles tiles) {
  switch (tiles) {
    case GroupedTiles::shared_256:
      return launch<kForm, 256, true>(p, a, b);
    case GroupedTiles::own_128:
      return launch<kForm, 128, false>(p, a, b);
    default:
      return launch<kForm, 192, false>(p, a, b);
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
    FULCRUM_CUDA_CHECK(
        cudaFuncGetAttributes(&attributes, grouped_kernel<Form::forward, 192, false>));
    return major == 9 && attributes.ptxVersion == 90;
  }();
  return has;
}

void grouped_product_hopper(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b,
                            GroupedTiles tiles) {
  const auto map = [](const Tensor& x) {
    const bool matrix = x.rank() == 2;
    return tensor_map(x.raw(), x.dim(-1), x.dim(matrix ? 0 : 1), matrix ? 1 : x.dim(0));
  };
  const CUtensorMap map_a = map(a);
  const CUtensorMap map_b = map(b);
  switch (form) {
    case Form::forward:
      return launch<Form::forward>(p, map_a, map_b, tiles);
    case Form::input:
      return launch<Form::input>(p, map_a, map_b, tiles);
    case Form::weight:
      return launch<Form::weight>(p, map_a, map_b, tiles);
  }
}

}  // namespace fulcrum::ops::cuda
