#pragma once
// The ranks that run the distributed tests; one when started without mpirun.

#include "parallel/communicator.h"
#include "parallel/session.h"

namespace fulcrum::testing {

inline const parallel::Communicator& world() {
  static const parallel::Session session;
  static const parallel::Communicator communicator = parallel::Communicator::world();
  return communicator;
}

}  // namespace fulcrum::testing
