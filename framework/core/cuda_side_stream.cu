#include "framework/core/cuda_check.h"
#include "framework/core/cuda_side_stream.h"
#include "framework/core/cuda_stream.h"

namespace fulcrum {
namespace {

struct Side {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
};

const Side& side() {
  static const Side made = [] {
    Side s;
    FULCRUM_CUDA_CHECK(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
    FULCRUM_CUDA_CHECK(cudaEventCreateWithFlags(&s.begin, cudaEventDisableTiming));
    FULCRUM_CUDA_CHECK(cudaEventCreateWithFlags(&s.end, cudaEventDisableTiming));
    return s;
  }();
  return made;
}

}  // namespace

SideStream::SideStream() {
  FULCRUM_CUDA_CHECK(cudaEventRecord(side().begin, compute_stream()));
  FULCRUM_CUDA_CHECK(cudaStreamWaitEvent(side().stream, side().begin, 0));
}

SideStream::~SideStream() {
  if (joined_) return;
  cudaEventRecord(side().end, side().stream);
  cudaStreamWaitEvent(compute_stream(), side().end, 0);
}

cudaStream_t SideStream::stream() const { return side().stream; }

void SideStream::join() {
  joined_ = true;
  FULCRUM_CUDA_CHECK(cudaEventRecord(side().end, side().stream));
  FULCRUM_CUDA_CHECK(cudaStreamWaitEvent(compute_stream(), side().end, 0));
}

}  // namespace fulcrum
