#include "framework/core/host_memory.h"

#include <cstdint>
#include <vector>

#include "framework/core/tensor.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"

using namespace fulcrum;

namespace {

Tensor numbered(std::int64_t n) {
  const Tensor x = Tensor::empty({n}, DType::u8);
  for (std::int64_t i = 0; i < n; ++i) {
    x.data<std::uint8_t>()[i] = static_cast<std::uint8_t>((i * 2654435761u) >> 13);
  }
  return x;
}

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

}  // namespace

TEST_CASE("copies of host memory on several threads", "[unit][core]") {
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{1}, 5 * kMiB, 9 * kMiB + 13}) {
    const Tensor x = numbered(n);
    CHECK(x.clone().to_vector<std::uint8_t>() == x.to_vector<std::uint8_t>());
  }
}

TEST_CASE("large tensors survive the way to CUDA and back", "[gpu][core]") {
  const Device device = testing::cuda_device();
  // Below and above the size that is copied in pieces: one, two and several, the last one odd.
  for (const std::int64_t n : {3 * kMiB, 4 * kMiB, 32 * kMiB, 33 * kMiB, 150 * kMiB + 13}) {
    const Tensor x = numbered(n);
    const Tensor there = x.to(device);
    const Tensor back = there.clone().to(Device{});
    CHECK(back.to_vector<std::uint8_t>() == x.to_vector<std::uint8_t>());
  }
}
