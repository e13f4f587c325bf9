#include "framework/core/tensor.h"

#include <limits>

#include "framework/core/cuda_memory.h"
#include "framework/core/philox.h"
#include "tests/catch.h"

using namespace fulcrum;

TEST_CASE("views share memory and check their bounds", "[unit][core]") {
  const Tensor t = Tensor::from<std::int64_t>({0, 1, 2, 3, 4, 5}, {3, 2});
  CHECK(t.slice(1, 3).data<std::int64_t>()[0] == 2);
  CHECK(t.reshape({2, -1}).shape() == Shape{2, 3});
  t.slice(0, 1).fill(7);
  CHECK(t.data<std::int64_t>()[1] == 7);
  CHECK_THROWS_AS(t.slice(1, 4), ArgumentError);
  CHECK_THROWS_AS(t.reshape({4, -1}), ArgumentError);
  CHECK_THROWS_AS(t.reshape({5}), ArgumentError);
  CHECK_THROWS_AS(t.data<float>(), ArgumentError);
  CHECK(Tensor::empty({0, 4}, DType::f32).numel() == 0);
}

TEST_CASE("bf16 rounds to nearest even and keeps what is special", "[unit][core]") {
  const auto round = [](float x) { return static_cast<float>(BFloat16(x)); };
  CHECK(round(1.0f + 0x1p-8f) == 1.0f);  // a tie goes to even
  CHECK(round(1.0f + 3 * 0x1p-8f) == 1.0f + 0x1p-6f);
  CHECK(round(1.0f + 0x1.1p-8f) == 1.0f + 0x1p-7f);
  CHECK(round(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity());
  CHECK(std::isnan(round(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(
      round(std::bit_cast<float>(0x7f800001u))));  // whose payload is only in the lower half
}

TEST_CASE("Philox agrees with the published vectors", "[unit][core]") {
  // Known-answer tests of Random123 (kat_vectors, philox4x32 with 10 rounds).
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random fills depend on the global index alone", "[unit][core]") {
  const Tensor whole = Tensor::empty({1003}, DType::f64);
  fill_normal(whole, 2.0, 17, stream_of("w"));
  for (const std::int64_t first : {0, 1, 6, 500}) {
    const Tensor part = Tensor::empty({101}, DType::f64);
    fill_normal(part, 2.0, 17, stream_of("w"), first);
    CHECK(part.to_vector<double>() == whole.slice(first, first + 101).to_vector<double>());
  }
  double mean = 0.0;
  double square = 0.0;
  for (const double x : whole.to_vector<double>()) {
    mean += x / 1003;
    square += x * x / 1003;
  }
  CHECK(std::abs(mean) < 0.2);
  CHECK(std::abs(square - 4.0) < 0.6);
}

TEST_CASE("the pool hands a freed block out again and counts bytes", "[unit][core]") {
  const MemoryStats before = memory_stats();
  const void* first = nullptr;
  {
    const Tensor t = Tensor::empty({3 << 20}, DType::u8);
    first = t.raw();
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
    CHECK(memory_stats().in_use - before.in_use >= (3 << 20));
  }
  CHECK(memory_stats().in_use == before.in_use);
  CHECK(Tensor::empty({3 << 20}, DType::u8).raw() == first);
}

TEST_CASE("tensors travel to a GPU and back", "[gpu][core]") {
  if (cuda_device_count() == 0) return;
  const Device gpu{Device::Kind::cuda, 0};
  const Tensor host = Tensor::from<float>({1, 2, 3}, {3});
  const Tensor device = host.to(gpu);
  CHECK_THROWS_AS(device.data<float>(), ArgumentError);
  CHECK(device.clone().to(Device{}).to_vector<float>() == host.to_vector<float>());
  device.zero();
  CHECK(device.to(Device{}).to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("a build without a GPU says so", "[unit][core]") {
  if (cuda_device_count() > 0) return;
  CHECK_THROWS_AS(Tensor::empty({1}, DType::f32, Device{Device::Kind::cuda, 0}),
                  std::runtime_error);
}
