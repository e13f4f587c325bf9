#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

TEST_CASE("elementwise arithmetic on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = cuda_tolerance(dtype);
    for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 5}, Shape{2, 33, 264}, Shape{1001, 67},
                               Shape{700, 2048}, Shape{5003, 264}}) {
      INFO(name_of(dtype) << " " << to_string(shape));
      const auto check = [&](const TensorFunction& f, const std::vector<CudaInput>& inputs) {
        const CudaErrors errors = cuda_errors(f, inputs, dtype);
        CHECK(errors.outputs < tolerance);
        CHECK(errors.gradients < tolerance);
      };
      const Tensor x = random(shape, 1);
      check([](const auto& v) { return std::vector{add(v[0], v[1])}; }, {x, random(shape, 2)});
      check([](const auto& v) { return std::vector{add(v[0], v[0])}; }, {x});
      check([](const auto& v) { return std::vector{scale(v[0], -2.5)}; }, {x});
      check([](const auto& v) { return std::vector{sum(v[0]), sum(v[0])}; }, {x});
      check(
          [](const auto& v) {
            return std::vector{add_bias(v[0], v[1]), add_bias(v[0], v[1])};
          },
          {x, vector(random({shape[-1]}, 2))});
    }
    // Rows of a slice start where 16 bytes do not.
    const CudaErrors errors = cuda_errors(
        [](const auto& v) {
          const Tensor rows = v[0].slice(1, 1000);
          return std::vector{scale(rows, 3.0), add(rows, rows), sum(rows), add_bias(rows, v[1])};
        },
        {random({1001, 9}, 1), vector(random({9}, 2))}, dtype);
    CHECK(errors.outputs < tolerance);
    CHECK(errors.gradients < tolerance);
  }
}

TEST_CASE("sums on CUDA repeat bit for bit", "[gpu][ops]") {
  const Tensor x = random({1237, 511}, 1).to(DType::bf16).to(cuda_device());
  CHECK(sum(x).dtype() == DType::f32);
  CHECK(sum(x).item() == sum(x).item());
}

TEST_CASE("elementwise arithmetic on empty tensors on CUDA", "[gpu][ops]") {
  const Tensor none = Tensor::empty({0, 3}, DType::f32, cuda_device());
  CHECK(add(none, none).numel() == 0);
  CHECK(scale(none, 2.0).numel() == 0);
  CHECK(add_bias(none, Tensor::zeros({3}, DType::f32, none.device())).numel() == 0);
  CHECK(sum(none).item() == 0.0);
}
