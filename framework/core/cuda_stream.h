#pragma once
// The streams of this process's device. For CUDA sources only.

#include <cuda_runtime_api.h>

namespace fulcrum {

// All kernels and copies of operators and optimizers run here, or join here (SideStream): a block
// that goes back to the pool may be handed out at once, since its next user runs after its last.
cudaStream_t compute_stream();

}  // namespace fulcrum
