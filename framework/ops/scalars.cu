#include <algorithm>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/scalars_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kMost = 128;  // of one launch

struct Scalars {
  const void* address[kMost];
  DType dtype[kMost];
  int count;
};

__global__ void pack_kernel(Scalars scalars, double* packed) {
  const int i = threadIdx.x;
  if (i >= scalars.count) return;
  const void* p = scalars.address[i];
  switch (scalars.dtype[i]) {
    case DType::f64:
      packed[i] = *static_cast<const double*>(p);
      break;
    case DType::i64:
      packed[i] = static_cast<double>(*static_cast<const std::int64_t*>(p));
      break;
    case DType::i32:
      packed[i] = *static_cast<const std::int32_t*>(p);
      break;
    default:
      packed[i] = *static_cast<const float*>(p);
  }
}

}  // namespace

void pack_scalars(const std::vector<Tensor>& scalars, const Tensor& packed) {
  for (std::size_t first = 0; first < scalars.size(); first += kMost) {
    Scalars part{};
    part.count = static_cast<int>(std::min<std::size_t>(kMost, scalars.size() - first));
    for (int i = 0; i < part.count; ++i) {
      const Tensor& x = scalars[first + i];
      FULCRUM_REQUIRE(x.dtype() == DType::f64 || x.dtype() == DType::f32 ||
                          x.dtype() == DType::i64 || x.dtype() == DType::i32,
                      "pack_scalars: no kernel for {}", name_of(x.dtype()));
      part.address[i] = x.raw();
      part.dtype[i] = x.dtype();
    }
    pack_kernel<<<1, kMost, 0, compute_stream()>>>(part, device_data<double>(packed) + first);
    FULCRUM_CUDA_LAUNCHED();
  }
}

}  // namespace fulcrum::ops::cuda
