#include "framework/ops/rotary_attention.h"

#include <cmath>
#include <initializer_list>
#include <utility>

#include "framework/ops/attention.h"
#include "framework/ops/rope.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

void check_on_cuda(std::initializer_list<std::int64_t> lengths, DType dtype) {
  for (const std::int64_t dim : {64, 128, 40, 20}) {
    for (const auto& [heads, kv_heads] : {std::pair{4, 4}, {6, 2}}) {
      for (const std::int64_t length : lengths) {
        INFO(name_of(dtype) << ", heads " << heads << " / " << kv_heads << " of " << dim
                            << ", length " << length);
        const std::int64_t all = heads + 2 * kv_heads;
        const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
        // held by the test too: turned in a copy
        const auto copied = cuda_errors(
            [&](const auto& x) {
              return std::vector{rotary_attention(x[0], heads, kv_heads, dim, 10000.0, scale)};
            },
            {random({2, length, all * dim}, 1)}, dtype);
        CHECK(copied.outputs < cuda_tolerance(dtype));
        CHECK(copied.gradients < cuda_tolerance(dtype));
        // moved in: turned in place
        const auto moved = cuda_errors(
            [&](const auto& x) {
              Tensor qkv = rope(x[0], 500.0).reshape({2, length, all * dim});
              return std::vector{
                  rotary_attention(std::move(qkv), heads, kv_heads, dim, 10000.0, scale)};
            },
            {random({2, length, all, dim}, 2)}, dtype);
        CHECK(moved.outputs < cuda_tolerance(dtype));
        CHECK(moved.gradients < cuda_tolerance(dtype));
      }
    }
  }
}

}  // namespace

TEST_CASE("rotary attention is attention of turned heads", "[unit][ops]") {
  const Tensor qkv = random({2, 9, 8 * 6}, 1);
  const Qkv y = split_qkv_rope(qkv, 4, 2, 6, 100.0);
  CHECK(relative_error(rotary_attention(qkv, 4, 2, 6, 100.0, 0.4),
                       causal_attention(y.query, y.key, y.value, 0.4)) == 0.0);
  CHECK(gradient_error([](const auto& x) { return rotary_attention(x[0], 2, 1, 4, 100.0, 0.5); },
                       {random({1, 5, 4 * 4}, 2)}) < 1e-7);
}

TEST_CASE("rotary attention refuses wrong arguments", "[unit][ops]") {
  const auto refuse = [](const Shape& shape, std::int64_t heads, std::int64_t dim, double theta) {
    CHECK_THROWS_AS(rotary_attention(random(shape, 1), heads, 2, dim, theta, 1.0), ArgumentError);
  };
  refuse({2, 3, 32}, 4, 4, -1.0);
  refuse({2, 3, 32}, 3, 4, 100.0);
  refuse({2, 3, 24}, 4, 3, 100.0);
  refuse({2, 3, 4, 8}, 4, 4, 100.0);
}

TEST_CASE("rotary attention in f32 on CUDA equals that on the CPU", "[gpu][ops]") {
  check_on_cuda({5, 100}, DType::f32);
}

TEST_CASE("rotary attention in bf16 on CUDA equals that on the CPU", "[gpu][ops]") {
  check_on_cuda({5, 100}, DType::bf16);
}

// Too long for a race checker.
TEST_CASE("long rotary attention on CUDA equals that on the CPU", "[gpu][ops][long]") {
  for (const DType dtype : {DType::f32, DType::bf16}) check_on_cuda({384}, dtype);
}
