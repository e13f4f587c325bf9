#include "framework/core/cuda_check.h"
#include "framework/core/cuda_event.h"
#include "framework/core/cuda_stream.h"

namespace fulcrum {

struct CudaEvent::Handle {
  cudaEvent_t event = nullptr;
};

CudaEvent::CudaEvent() : handle_(std::make_unique<Handle>()) {
  FULCRUM_CUDA_CHECK(cudaEventCreate(&handle_->event));
}
CudaEvent::~CudaEvent() { cudaEventDestroy(handle_->event); }

void CudaEvent::record() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  FULCRUM_CUDA_CHECK(cudaStreamIsCapturing(compute_stream(), &status));
  // An external event becomes a node of the graph under capture, set by each replay.
  const unsigned flags =
      status == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
  FULCRUM_CUDA_CHECK(cudaEventRecordWithFlags(handle_->event, compute_stream(), flags));
}

void CudaEvent::wait() const { FULCRUM_CUDA_CHECK(cudaEventSynchronize(handle_->event)); }

double CudaEvent::seconds_since(const CudaEvent& earlier) const {
  FULCRUM_CUDA_CHECK(cudaEventSynchronize(earlier.handle_->event));
  FULCRUM_CUDA_CHECK(cudaEventSynchronize(handle_->event));
  float milliseconds = 0.0f;
  FULCRUM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier.handle_->event, handle_->event));
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace fulcrum
