#include <cstring>

#include "framework/autograd/tape.h"
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
    // widths with rows in registers of one warp and of several, of odd size, and too wide for that
    for (const std::int64_t width : {3, 8, 67, 384, 1000, 2048, 2056, 5000, 12000, 16400}) {
      // no more than blocks, and so many that a block takes several
      for (const std::int64_t rows : {1, 130, 3001}) {
        if (rows * width > 20000000) continue;
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

TEST_CASE("the gradient of rms_norm on CUDA adds to one, and repeats bit for bit", "[gpu][ops]") {
  for (const std::int64_t width : {67, 384, 2048}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(name_of(dtype) << " " << width);
      // x has a gradient already when that of the norm comes
      const CudaErrors errors = cuda_errors(
          [](const auto& x) {
            const Tensor y = rms_norm(x[0], x[1], 1e-5);
            return std::vector{y, rms_norm(x[0], x[2], 1e-5)};
          },
          {random({3001, width}, 1), vector(random({width}, 2)), vector(random({width}, 3))},
          dtype);
      CHECK(errors.outputs < cuda_tolerance(dtype));
      CHECK(errors.gradients < cuda_tolerance(dtype));
    }
    const Device device = cuda_device();
    const Tensor x = random({3001, width}, 1).to(DType::bf16).to(device);
    const Tensor w = random({width}, 2).to(DType::f32).to(device);
    const Tensor g = random({3001, width}, 3).to(DType::bf16).to(device);
    std::vector<Tensor> gradients;
    for (int i = 0; i < 2; ++i) {
      const Tensor leaf = make_leaf(w);
      Tensor input = x.detach();
      input.set_slot(std::make_shared<GradSlot>());
      Tape tape;
      Tensor y;
      {
        const Tape::Scope recording(tape);
        y = rms_norm(input, leaf, 1e-5);
      }
      tape.backward(y, g);
      gradients.push_back(leaf.grad().to(Device{}));
      gradients.push_back(input.grad().to(Device{}));
    }
    for (int k = 0; k < 2; ++k) {
      CHECK(std::memcmp(gradients[k].raw(), gradients[k + 2].raw(),
                        static_cast<std::size_t>(gradients[k].bytes())) == 0);
    }
  }
}
