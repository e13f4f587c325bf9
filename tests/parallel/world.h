#pragma once
// The ranks that run the distributed tests; one when started without mpirun.

#include "apps/device_choice.h"
#include "framework/core/device.h"
#include "parallel/communicator.h"
#include "parallel/session.h"

namespace fulcrum::testing {

inline const parallel::Session& session() {
  static const parallel::Session instance;
  return instance;
}

inline const parallel::Communicator& world() {
  session();
  static const parallel::Communicator communicator = parallel::Communicator::world();
  return communicator;
}

// This rank's GPU. Ranks that share one need an NCCL_HOSTID of their own (tests/gpu).
inline Device world_gpu() {
  return apps::choose_device(apps::DeviceChoice::cuda, session().local_rank());
}

}  // namespace fulcrum::testing
