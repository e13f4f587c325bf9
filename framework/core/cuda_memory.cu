#include "framework/core/cuda_check.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/cuda_staging.h"
#include "framework/core/cuda_stream.h"

namespace fulcrum {
namespace {

constexpr std::size_t kStaged = std::size_t{4} << 20;  // bytes from which staging pays

// Makes a device current for a scope.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index) {
    FULCRUM_CUDA_CHECK(cudaGetDevice(&previous_));
    if (previous_ != index) FULCRUM_CUDA_CHECK(cudaSetDevice(index));
    index_ = index;
  }
  ~CurrentDevice() {
    if (previous_ != index_) cudaSetDevice(previous_);
  }

 private:
  int previous_ = 0;
  int index_ = 0;
};

}  // namespace

cudaStream_t compute_stream() {
  static const cudaStream_t stream = [] {
    cudaStream_t created = nullptr;
    FULCRUM_CUDA_CHECK(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
    return created;
  }();
  return stream;
}

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string cuda_device_name(int index) {
  cudaDeviceProp properties{};
  FULCRUM_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  return properties.name;
}

void use_cuda_device(int index) { FULCRUM_CUDA_CHECK(cudaSetDevice(index)); }

void cuda_synchronize() { FULCRUM_CUDA_CHECK(cudaDeviceSynchronize()); }

void* cuda_allocate(std::size_t bytes, int index) {
  const CurrentDevice current(index);
  void* block = nullptr;
  const cudaError_t result = cudaMalloc(&block, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the error is ours to handle
    return nullptr;
  }
  FULCRUM_CUDA_CHECK(result);
  return block;
}

void cuda_free(void* block, int index) {
  const CurrentDevice current(index);
  FULCRUM_CUDA_CHECK(cudaFree(block));
}

void cuda_copy(void* target, Device target_device, const void* source, Device source_device,
               std::size_t bytes) {
  const CurrentDevice current(target_device.is_cpu() ? source_device.index : target_device.index);
  if (bytes >= kStaged && target_device.is_cpu() != source_device.is_cpu()) {
    return copy_staged(target, source, bytes, target_device.is_cpu());
  }
  FULCRUM_CUDA_CHECK(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, compute_stream()));
  if (target_device.is_cpu() || source_device.is_cpu()) {
    FULCRUM_CUDA_CHECK(cudaStreamSynchronize(compute_stream()));
  }
}

void* cuda_allocate_pinned(std::size_t bytes) {
  void* block = nullptr;
  FULCRUM_CUDA_CHECK(cudaMallocHost(&block, bytes));
  return block;
}

void cuda_free_pinned(void* block) { cudaFreeHost(block); }

void cuda_upload(void* target, int index, const void* pinned, std::size_t bytes) {
  const CurrentDevice current(index);
  FULCRUM_CUDA_CHECK(
      cudaMemcpyAsync(target, pinned, bytes, cudaMemcpyHostToDevice, compute_stream()));
}

void cuda_set_bytes(void* block, int value, std::size_t bytes, int index) {
  const CurrentDevice current(index);
  FULCRUM_CUDA_CHECK(cudaMemsetAsync(block, value, bytes, compute_stream()));
}

}  // namespace fulcrum
