#include <cuda.h>

#include <algorithm>

#include "framework/core/cuda_check.h"
#include "framework/core/cuda_kernel.cuh"
#include "parallel/flight_record.h"

namespace fulcrum::parallel {
namespace {

// Of the driver, which is found at run time: the program starts on machines without one, too.
using BatchMemOp = CUresult (*)(CUstream, unsigned, CUstreamBatchMemOpParams*, unsigned);

BatchMemOp batch_mem_op() {
  static const BatchMemOp function = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    FULCRUM_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &entry, 11070,
                                                        cudaEnableDefault, &found));
#else
    FULCRUM_CUDA_CHECK(
        cudaGetDriverEntryPoint("cuStreamBatchMemOp", &entry, cudaEnableDefault, &found));
#endif
    FULCRUM_CHECK(found == cudaDriverEntryPointSuccess,
                  "this driver has no cuStreamBatchMemOp: CUDA 11.7 or newer is needed");
    return reinterpret_cast<BatchMemOp>(entry);
  }();
  return function;
}

CUstreamBatchMemOpParams write(const volatile std::uint32_t* address, std::uint32_t value) {
  CUstreamBatchMemOpParams params{};
  params.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  params.writeValue.address = reinterpret_cast<CUdeviceptr>(address);
  params.writeValue.value = value;
  params.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
  return params;
}

// The end is a kernel, since a graph can write only constants by itself, and a count is what tells
// one replay from the next.
__global__ void finish_flight(volatile std::uint32_t* operation, volatile std::uint32_t* finished,
                              std::int64_t* count) {
  *operation = 0;
  *finished = static_cast<std::uint32_t>(++*count);
}

}  // namespace

FlightRecord::FlightRecord(Device device) : finished_(Tensor::zeros({1}, DType::i64, device)) {
  void* host = nullptr;
  FULCRUM_CUDA_CHECK(cudaMallocHost(&host, sizeof(Marks)));
  auto* marks = static_cast<Marks*>(host);
  *marks = {};
  marks_ = marks;
}

FlightRecord::~FlightRecord() { cudaFreeHost(const_cast<Marks*>(marks_)); }

void FlightRecord::begin(const std::string& operation, std::int64_t bytes, cudaStream_t stream) {
  std::uint32_t index = 0;
  {
    const std::lock_guard lock(mutex_);
    auto it = std::find(names_.begin(), names_.end(), operation);
    if (it == names_.end()) it = names_.insert(it, operation);
    index = static_cast<std::uint32_t>(it - names_.begin()) + 1;
  }
  CUstreamBatchMemOpParams writes[] = {
      write(&marks_->kib, static_cast<std::uint32_t>((bytes + 1023) / 1024)),
      write(&marks_->operation, index)};
  const CUresult result = batch_mem_op()(stream, 2, writes, 0);
  FULCRUM_CHECK(result == CUDA_SUCCESS, "cuStreamBatchMemOp: error {}", static_cast<int>(result));
}

void FlightRecord::end(cudaStream_t stream) {
  finish_flight<<<1, 1, 0, stream>>>(&marks_->operation, &marks_->finished,
                                     device_data<std::int64_t>(finished_));
  FULCRUM_CUDA_LAUNCHED();
}

FlightRecord::Reading FlightRecord::read() {
  Reading reading;
  reading.finished = marks_->finished;
  const std::uint32_t index = marks_->operation;
  const std::lock_guard lock(mutex_);
  if (index == 0 || index > names_.size()) return reading;
  reading.operation = names_[index - 1];
  reading.bytes = std::int64_t{marks_->kib} * 1024;
  return reading;
}

}  // namespace fulcrum::parallel
