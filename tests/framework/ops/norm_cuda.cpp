#include "framework/ops/norm.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

TEST_CASE("norms on CUDA equal those on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = cuda_tolerance(dtype);
    // widths with rows in registers, of odd size, and too wide for that
    for (const std::int64_t width : {3, 8, 67, 384, 2048, 2056, 5000}) {
      for (const std::int64_t rows : {1, 130, 3001}) {
        INFO(name_of(dtype) << " " << rows << " x " << width);
        const auto alone =
            cuda_errors([](const auto& x) { return std::vector{rms_norm(x[0], x[1], 1e-5)}; },
                        {random({rows, width}, 1), vector(random({width}, 2))}, dtype);
        CHECK(alone.outputs < tolerance);
        CHECK(alone.gradients < tolerance);
        const auto fused = cuda_errors(
            [](const auto& x) {
              const NormedSum y = add_rms_norm(x[0], x[1], x[2], 1e-5);
              return std::vector{y.sum, y.normed};
            },
            {random({rows, width}, 1), random({rows, width}, 2), vector(random({width}, 3))},
            dtype);
        CHECK(fused.outputs < tolerance);
        CHECK(fused.gradients < tolerance);
      }
    }
  }
}
