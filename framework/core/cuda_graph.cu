#include "framework/core/cuda_check.h"
#include "framework/core/cuda_graph.h"
#include "framework/core/cuda_stream.h"
#include "framework/core/graph_memory.h"
#include "framework/core/memory_pool.h"

namespace fulcrum {

struct CudaGraph::Executable {
  GraphMemory memory;
  cudaGraphExec_t handle = nullptr;
  ~Executable() {
    if (handle != nullptr) cudaGraphExecDestroy(handle);
  }
};

CudaGraph::CudaGraph() = default;
CudaGraph::~CudaGraph() = default;

void CudaGraph::capture(const std::function<void()>& work) {
  const cudaStream_t stream = compute_stream();
  auto executable = std::make_unique<Executable>();
  cudaGraph_t graph = nullptr;
  // Relaxed: the pool may ask the driver for memory meanwhile.
  FULCRUM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  try {
    const GraphMemoryScope memory;
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  FULCRUM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  // Collectives go before other kernels inside a graph, too.
  const cudaError_t result =
      cudaGraphInstantiate(&executable->handle, graph, cudaGraphInstantiateFlagUseNodePriority);
  cudaGraphDestroy(graph);
  FULCRUM_CUDA_CHECK(result);
  executable_ = std::move(executable);
}

void CudaGraph::replay() const {
  FULCRUM_CHECK(captured(), "a graph that was not captured");
  FULCRUM_CUDA_CHECK(cudaGraphLaunch(executable_->handle, compute_stream()));
}

}  // namespace fulcrum
