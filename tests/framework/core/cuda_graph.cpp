#include "framework/core/cuda_graph.h"

#include <memory>

#include "framework/core/memory_pool.h"
#include "framework/core/tensor.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"

using namespace fulcrum;

TEST_CASE("memory stays with a captured graph as long as it lives", "[gpu][core]") {
  const Device device = testing::cuda_device();
  release_cached_memory(device);
  const std::int64_t before = memory_stats(device).reserved;
  auto graph = std::make_unique<CudaGraph>();
  graph->capture([&] { Tensor::empty({std::int64_t{5} << 20}, DType::u8, device).zero(); });
  const std::int64_t with_graph = memory_stats(device).reserved;
  CHECK(with_graph > before);
  release_cached_memory(device);
  CHECK(memory_stats(device).reserved == with_graph);
  graph.reset();
  release_cached_memory(device);
  CHECK(memory_stats(device).reserved == before);
}
