#include "apps/train/placement.h"

#include "apps/device_choice.h"
#include "framework/core/determinism.h"
#include "framework/ops/gemm.h"

namespace fulcrum::apps {

ParameterStore::Placement place(const ExperimentConfig& config, int local_rank) {
  set_deterministic(config.train.deterministic);
  const Device device = choose_device(config.device, local_rank);
  if (device.is_cpu()) {
    const bool bf16 = config.train.precision == Precision::bf16;
    ops::set_matmul_precision(bf16 ? ops::MatmulPrecision::bf16 : ops::MatmulPrecision::f32);
    return {DType::f32, device};
  }
  return {config.train.precision == Precision::f32 ? DType::f32 : DType::bf16, device};
}

bool divides_optimizer(ZeroStage zero, Device device, const parallel::MeshShape& mesh) {
  if (mesh.data() == 1) return false;
  return zero == ZeroStage::optimizer || (zero == ZeroStage::automatic && device.is_cuda());
}

}  // namespace fulcrum::apps
