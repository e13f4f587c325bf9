#include "framework/ops/rope.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

TEST_CASE("rope on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    // halves of whole packs, and those that are not
    for (const std::int64_t dim : {128, 64, 96, 40, 20, 6, 2}) {
      for (const auto& [heads, kv_heads] : {std::pair{16, 16}, {6, 2}, {1, 1}, {64, 4}}) {
        INFO(name_of(dtype) << ", heads " << heads << " / " << kv_heads << " of " << dim);
        const std::int64_t all = heads + 2 * kv_heads;
        const auto split = cuda_errors(
            [&](const auto& x) {
              const Qkv y = split_qkv_rope(x[0], heads, kv_heads, dim, 10000.0, 5);
              return std::vector{y.query, y.key, y.value};
            },
            {random({3, 37, all * dim}, 1)}, dtype);
        CHECK(split.outputs < cuda_tolerance(dtype));
        CHECK(split.gradients < cuda_tolerance(dtype));
        const auto alone =
            cuda_errors([](const auto& x) { return std::vector{rope(x[0], 500.0, 300)}; },
                        {random({2, heads, 19, dim}, 2)}, dtype);
        CHECK(alone.outputs < cuda_tolerance(dtype));
        CHECK(alone.gradients < cuda_tolerance(dtype));
      }
    }
  }
}

TEST_CASE("rope on CUDA leaves parts without a gradient at zero", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto errors = cuda_errors(
        [](const auto& x) { return std::vector{split_qkv_rope(x[0], 4, 2, 32, 100.0).key}; },
        {random({2, 9, 8 * 32}, 1)}, dtype);
    CHECK(errors.outputs < cuda_tolerance(dtype));
    CHECK(errors.gradients < cuda_tolerance(dtype));
  }
}

TEST_CASE("rope on CUDA adds to a gradient that is there", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto errors = cuda_errors(
        [](const auto& x) {
          const Qkv y = split_qkv_rope(x[0], 2, 1, 32, 100.0);
          return std::vector{y.query, rope(y.query, 100.0), y.key, y.value,
                             split_qkv_rope(x[0], 6, 1, 16, 50.0).query};
        },
        {random({2, 9, 4 * 32}, 1)}, dtype);
    CHECK(errors.outputs < cuda_tolerance(dtype));
    CHECK(errors.gradients < cuda_tolerance(dtype));
  }
}

TEST_CASE("rope on CUDA of long sequences", "[gpu][ops]") {
  const auto errors = cuda_errors(
      [](const auto& x) { return std::vector{split_qkv_rope(x[0], 2, 1, 64, 1e6).query}; },
      {random({1, 5000, 4 * 64}, 1)}, DType::f32);
  CHECK(errors.outputs < cuda_tolerance(DType::f32));
  CHECK(errors.gradients < cuda_tolerance(DType::f32));
}

TEST_CASE("rope on CUDA of nothing", "[gpu][ops]") {
  const Tensor x = Tensor::empty({2, 0, 64}, DType::bf16, cuda_device());
  CHECK(split_qkv_rope(x, 2, 1, 16, 100.0).query.shape() == Shape{2, 2, 0, 16});
  CHECK(rope(Tensor::empty({0, 2, 3, 4}, DType::f32, cuda_device()), 100.0).numel() == 0);
}
