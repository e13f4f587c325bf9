#include "framework/core/philox.h"
#include "framework/ops/expert_load.h"
#include "framework/ops/sequence_share.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

TEST_CASE("expert load on CUDA equals that on the CPU", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const std::int64_t experts : {1, 5, 64, 1000}) {
    std::vector<std::int64_t> values;
    for (std::int64_t e = 0; e < experts; ++e) values.push_back((e * 7919) % 13 + (1ll << 40));
    const Tensor counts = Tensor::from(values, {experts});
    const Tensor total = counts.clone();
    const Tensor on_device = counts.to(device);
    const Tensor device_total = total.to(device);
    accumulate_counts(total, counts);
    accumulate_counts(device_total, on_device);
    CHECK(device_total.to(Device{}).to_vector<std::int64_t>() == total.to_vector<std::int64_t>());

    const Tensor bias = random({experts}, 1).to(DType::f32);
    const Tensor device_bias = bias.to(device);
    follow_load(bias, counts, 1e-3);
    follow_load(device_bias, on_device, 1e-3);
    CHECK(device_bias.to(Device{}).to_vector<float>() == bias.to_vector<float>());
  }
}

TEST_CASE("a share of sequences is the same on CUDA", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const std::int64_t length : {1, 33, 4096}) {
    const Tensor ids = Tensor::empty({101, length}, DType::i32);
    for (std::int64_t i = 0; i < ids.numel(); ++i) {
      ids.data<std::int32_t>()[i] = static_cast<std::int32_t>(Random(1, 1).below(i, 50000));
    }
    for (const double share : {0.0, 0.1, 0.5, 1.0}) {
      const Tensor cpu = tokens_of_share(ids, share);
      const Tensor cuda = tokens_of_share(ids.to(device), share).to(Device{});
      CHECK(cuda.to_vector<std::uint8_t>() == cpu.to_vector<std::uint8_t>());
    }
  }
}
