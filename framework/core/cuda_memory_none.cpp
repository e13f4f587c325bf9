#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"

namespace fulcrum {
namespace {

[[noreturn]] void without_cuda() {
  throw UserError(
      "this program was built without CUDA; build the preset `cuda`, or set device: cpu");
}

}  // namespace

int cuda_device_count() { return 0; }
void* cuda_allocate(std::size_t, int) { without_cuda(); }
void cuda_free(void*, int) { without_cuda(); }
void cuda_copy(void*, Device, const void*, Device, std::size_t) { without_cuda(); }
void cuda_set_bytes(void*, int, std::size_t, int) { without_cuda(); }
void* cuda_allocate_pinned(std::size_t) { without_cuda(); }
void cuda_free_pinned(void*) { without_cuda(); }
void cuda_upload(void*, int, const void*, std::size_t) { without_cuda(); }
std::string cuda_device_name(int) { without_cuda(); }
void use_cuda_device(int) { without_cuda(); }
void cuda_synchronize() { without_cuda(); }

}  // namespace fulcrum
