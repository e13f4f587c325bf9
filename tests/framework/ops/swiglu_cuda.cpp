#include "framework/ops/swiglu.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/routing_samples.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

TEST_CASE("swiglu on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t f : {1, 8, 67, 128, 384, 1408, 2056}) {
      for (const std::int64_t rows : {1, 130, 1001}) {
        INFO(name_of(dtype) << " " << rows << " x " << f);
        const auto once = [](const auto& x) { return std::vector{swiglu(x[0])}; };
        // the second gradient adds to the first
        const auto twice = [](const auto& x) {
          const Tensor in = x[0];
          return std::vector{swiglu(in), swiglu(in)};
        };
        for (const TensorFunction& f_of : {TensorFunction(once), TensorFunction(twice)}) {
          const auto errors = cuda_errors(f_of, {random({rows, 2 * f}, 1, 2.0)}, dtype);
          CHECK(errors.outputs < cuda_tolerance(dtype));
          CHECK(errors.gradients < cuda_tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("weighted swiglu on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t f : {1, 8, 67, 128, 704, 1408}) {
      for (const double dropped : {0.0, 0.3}) {
        INFO(name_of(dtype) << " " << f << ", dropped " << dropped);
        // Between a permutation and its sum, since the rows of dropped slots are only there on
        // CUDA.
        const auto layer = [](const auto& x) {
          const Permutation p = make_permutation(x[0], 13);
          return std::vector{combine(weighted_swiglu(permute(x[1], p), x[2], p), p)};
        };
        const auto errors = cuda_errors(layer,
                                        {random_experts(203, 3, 13, dropped, 1),
                                         random({203, 2 * f}, 2), vector(random({203, 3}, 3))},
                                        dtype);
        CHECK(errors.outputs < cuda_tolerance(dtype));
        CHECK(errors.gradients < cuda_tolerance(dtype));
      }
    }
  }
}

TEST_CASE("weighted swiglu on CUDA leaves rows of no slot alone", "[gpu][ops]") {
  const Device device = cuda_device();
  const Permutation p = make_permutation(random_experts(50, 4, 8, 0.3, 1).to(device), 8);
  const std::int64_t kept = p.offsets.to(Device{}).data<std::int64_t>()[8];
  REQUIRE(kept < 200);
  const Tensor rows = Tensor::full({200, 32}, 1.0, DType::f32);
  for (std::int64_t i = kept * 32; i < rows.numel(); ++i) rows.data<float>()[i] = NAN;
  const Tensor weights = Tensor::full({50, 4}, 1.0, DType::f32, device);
  const Tensor y = weighted_swiglu(rows.to(device), weights, p).to(Device{});
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    CHECK((y.data<float>()[i] != 0.0f) == (i < kept * 16));
  }
}
