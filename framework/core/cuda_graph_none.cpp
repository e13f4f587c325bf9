#include "framework/core/cuda_graph.h"
#include "framework/core/error.h"

namespace fulcrum {

struct CudaGraph::Executable {};

CudaGraph::CudaGraph() = default;
CudaGraph::~CudaGraph() = default;
void CudaGraph::capture(const std::function<void()>&) {
  throw UserError("CUDA graphs need the preset `cuda`");
}
void CudaGraph::replay() const {}

}  // namespace fulcrum
