#include "apps/device_choice.h"

#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"

namespace fulcrum::apps {

Device choose_device(DeviceChoice choice, int local_rank) {
  if (choice == DeviceChoice::cpu) return {};
  const int count = cuda_device_count();
  if (count == 0) {
    if (choice == DeviceChoice::automatic) return {};
    throw UserError(kBuiltWithCuda
                        ? "device: cuda: no NVIDIA GPU or driver found; allowed here: cpu, auto"
                        : "device: cuda: this program was built without CUDA (preset `cuda` has "
                          "it); allowed here: cpu, auto");
  }
  const Device device{Device::Kind::cuda, local_rank % count};
  use_cuda_device(device.index);
  return device;
}

Device::Kind planned_device(DeviceChoice choice) {
  const bool gpu = choice == DeviceChoice::cuda ||
                   (choice == DeviceChoice::automatic && cuda_device_count() > 0);
  return gpu ? Device::Kind::cuda : Device::Kind::cpu;
}

}  // namespace fulcrum::apps
