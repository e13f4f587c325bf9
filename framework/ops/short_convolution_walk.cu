#include <algorithm>

#include "framework/ops/short_convolution_walk.cuh"

namespace fulcrum::ops::cuda {
namespace {

// What blocks have in shared memory.
template <class T>
struct Shared {
  int groups;
  int warps;  // of a group
  int most;   // positions of a strip

  __host__ __device__ int dots() const { return Dots<kBefore>::floats(warps); }
  // Steps that are asked about: before, in and after a strip.
  __host__ __device__ int steps() const { return most + 2 * kBefore; }
  __host__ __device__ int rounds() const { return most / kBefore; }  // in the strip
  std::size_t bytes() const {
    return Ring<T>::kBytes + groups * (dots() * sizeof(float) + steps() * sizeof(Known) + rounds());
  }
  __device__ float* dots_of(unsigned char* memory, int group) const {
    return reinterpret_cast<float*>(memory + Ring<T>::kBytes) + group * dots();
  }
  __device__ Known* known_of(unsigned char* memory, int group) const {
    return reinterpret_cast<Known*>(dots_of(memory, groups)) + group * steps();
  }
  __device__ bool* midst_of(unsigned char* memory, int group) const {
    return reinterpret_cast<bool*>(known_of(memory, groups)) + group * rounds();
  }
};

template <class T, bool kAdd>
__global__ void __launch_bounds__(kMostThreads, 1)
    walk_kernel(const __grid_constant__ Convolution<T> c, const T* gradient, Shared<T> shared,
                int strips, T* dx, float* partial) {
  extern __shared__ __align__(16) unsigned char walk_shared[];
  const int threads = shared.warps * 32;  // of a group
  // Alike in a warp, so that the compiler need not provide for lanes that part.
  const int group = __shfl_sync(0xffffffffu, threadIdx.x / threads, 0);
  const int thread = threadIdx.x - group * threads;
  const int index = blockIdx.x * shared.groups + group;
  Strip strip{0, 0, 0};
  if (index < strips) strip = Strip::of(c, shared.most, index);
  Known* const known = shared.known_of(walk_shared, group);
  bool* const midst = shared.midst_of(walk_shared, group);
  const Dots<kBefore> dots(shared.dots_of(walk_shared, group), 1 + group, shared.warps, thread);
  Walk<T, kAdd> walk(c, gradient, dx, strip, thread, reinterpret_cast<Quad<T>*>(walk_shared), dots,
                     known, midst);
  for (int i = thread; i < shared.steps(); i += threads) {
    known[i] = Known::of(c, strip.first + (i - kBefore) * c.dilation);
  }
  __syncthreads();
  for (int r = thread; r < shared.rounds(); r += threads) {
    bool all = r > 0;
    for (int u = r * kBefore; u < (r + 1) * kBefore; ++u) {
      all = all && (known[u + kBefore].seen & Known::kAll) == Known::kAll &&
            known[u].seen >> 4 == Known::kAll;
    }
    midst[r] = all;
  }
  __syncthreads();
  walk.run();
  walk.store_sums(walk_shared, shared.groups, threads, c.d, partial);
}

// Bytes that a block may ask for.
std::size_t most_shared_memory() {
  int device = 0;
  int bytes = 0;
  FULCRUM_CUDA_CHECK(cudaGetDevice(&device));
  FULCRUM_CUDA_CHECK(
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<std::size_t>(bytes);
}

}  // namespace

template <class T>
Tensor convolution_walk(const Convolution<T>& c, const T* gradient, T* dx, bool add,
                        Device device) {
  const std::int64_t threads = ceil_div(c.d / kQuad, 32) * 32;
  // Steps must fit into 32 bits, as must positions of a last strip that is not full.
  const std::int64_t step = std::int64_t{c.dilation} * c.d;
  const std::int64_t end = c.positions + std::int64_t{c.dilation} * (Strips::kMost + 3 * kBefore);
  if (!c.usual() || threads > kMostThreads || std::max(kBefore * step, end) >> 31 != 0) return {};
  const std::int64_t blocks = multiprocessors();
  const std::int64_t most_groups = std::min<std::int64_t>(kMostGroups, kMostThreads / threads);
  const Strips strips = Strips::over(c, blocks * most_groups, kBefore);
  const std::int64_t groups = std::min(most_groups, ceil_div(strips.count, blocks));
  const Shared<T> shared{static_cast<int>(groups), static_cast<int>(threads / 32), strips.most};
  if (shared.bytes() > most_shared_memory()) return {};
  const std::int64_t parts = ceil_div(strips.count, groups);
  const std::int64_t width = c.d;
  const Tensor partial =
      Tensor::empty({parts, std::int64_t{kUsualTaps}, width}, DType::f32, device);
  const auto kernel = add ? walk_kernel<T, true> : walk_kernel<T, false>;
  FULCRUM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared.bytes())));
  kernel<<<static_cast<unsigned>(parts), static_cast<unsigned>(groups * threads), shared.bytes(),
           compute_stream()>>>(c, gradient, shared, strips.count, dx, device_data<float>(partial));
  FULCRUM_CUDA_LAUNCHED();
  return partial;
}

template Tensor convolution_walk(const Convolution<float>&, const float*, float*, bool, Device);
template Tensor convolution_walk(const Convolution<__nv_bfloat16>&, const __nv_bfloat16*,
                                 __nv_bfloat16*, bool, Device);

}  // namespace fulcrum::ops::cuda
