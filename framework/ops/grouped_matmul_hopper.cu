#include <algorithm>

#include "framework/core/tensor_map.h"
#include "framework/ops/grouped_matmul_hopper.cuh"

namespace fulcrum::ops::cuda {
namespace {

template <class L>
struct Launch {
  cudaLaunchAttribute pair = {};
  cudaLaunchConfig_t config = {};

  explicit Launch(int blocks) {
    pair.id = cudaLaunchAttributeClusterDimension;
    pair.val.clusterDim = {2, 1, 1};
    config.gridDim = static_cast<unsigned>(blocks);
    config.blockDim = L::kThreads;
    config.dynamicSmemBytes = L::kSharedBytes;
    config.attrs = &pair;
    config.numAttrs = L::kPair ? 1 : 0;
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
};

// Blocks that run at one time: one on every multiprocessor, or as many pairs as fit.
template <class L>
int blocks() {
  FULCRUM_CUDA_CHECK(cudaFuncSetAttribute(
      grouped_kernel<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kSharedBytes));
  if constexpr (!L::kPair) return multiprocessors();
  const Launch<L> launch(multiprocessors() / 2 * 2);
  int pairs = 0;
  FULCRUM_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&pairs, grouped_kernel<L>, &launch.config));
  FULCRUM_CHECK(pairs > 0, "grouped_linear: no pair of blocks fits on this device");
  return std::min(2 * pairs, multiprocessors() / 2 * 2);
}

template <Form kForm, class Out, int kTileColumns, Teams kTeams, Takers kTakers>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b) {
  using L = GroupedLayout<kForm, Out, kTileColumns, kTeams, kTakers>;
  static const int grid = blocks<L>();
  Launch<L> launch(grid);
  launch.config.stream = compute_stream();
  FULCRUM_CUDA_CHECK(cudaLaunchKernelEx(&launch.config, grouped_kernel<L>, p, a, b));
}

template <Form kForm, class Out>
void launch(const GroupedProduct& p, const CUtensorMap& a, const CUtensorMap& b,
            GroupedTiles tiles) {
  switch (tiles) {
    case GroupedTiles::shared_256:
      return launch<kForm, Out, 256, Teams::shared, Takers::blocks>(p, a, b);
    case GroupedTiles::own_128:
      return launch<kForm, Out, 128, Teams::own, Takers::blocks>(p, a, b);
    case GroupedTiles::pair_256:
      return launch<kForm, Out, 256, Teams::shared, Takers::pairs>(p, a, b);
    case GroupedTiles::pair_192:
      return launch<kForm, Out, 192, Teams::own, Takers::pairs>(p, a, b);
    default:
      return launch<kForm, Out, 192, Teams::own, Takers::blocks>(p, a, b);
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
        &attributes,
        grouped_kernel<
            GroupedLayout<Form::forward, __nv_bfloat16, 192, Teams::own, Takers::blocks>>));
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
