#include <cmath>

#include "framework/ops/dse_gate.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::testing;
using ops::dse_gate;

namespace {

std::vector<Tensor> all_of(const ops::GatedValue& gated) {
  return {gated.value, gated.gate, gated.square_means};
}

// Hidden states, and keys that are so much like them (or unlike, in every other token) that no
// score comes near zero, where the root has no slope in finite precision.
std::vector<CudaInput> inputs_of(std::int64_t tokens, std::int64_t width) {
  const Tensor hidden = random({tokens, width}, 1);
  const Tensor key = random({tokens, width}, 2);
  const double likeness = 4.0 / std::sqrt(static_cast<double>(width));
  for (std::int64_t i = 0; i < key.numel(); ++i) {
    key.data<double>()[i] += (i / width % 2 == 0 ? likeness : -likeness) * hidden.data<double>()[i];
  }
  const auto norm = [&](std::uint64_t seed) {
    const Tensor scale = random({width}, seed, 0.2);
    for (std::int64_t i = 0; i < width; ++i) scale.data<double>()[i] += 1.0;
    return vector(scale);
  };
  return {hidden, key, random({tokens, width}, 3), norm(4), norm(5)};
}

}  // namespace

TEST_CASE("the gate of a memory on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = cuda_tolerance(dtype);
    // rows of part of a warp, of several warps, of odd size, and too wide for registers
    for (const std::int64_t width : {3, 8, 67, 384, 1280, 2560, 5200}) {
      for (const std::int64_t tokens : {0, 1, 130, 1001}) {
        if (width > 2000 && tokens > 1000) continue;
        for (const bool signed_sqrt : {true, false}) {
          INFO(name_of(dtype) << " " << tokens << " x " << width << (signed_sqrt ? " root" : ""));
          const auto errors = cuda_errors(
              [=](const auto& x) {
                return all_of(dse_gate(x[0], x[1], x[2], x[3], x[4], 1e-6, signed_sqrt));
              },
              inputs_of(tokens, width), dtype);
          CHECK(errors.outputs < tolerance);
          CHECK(errors.gradients < tolerance);
        }
      }
    }
  }
}

TEST_CASE("gradients of the gate add up on CUDA", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t width : {30, 384}) {
      INFO(name_of(dtype) << " " << width);
      // Used twice, and one tensor in three roles.
      const auto errors = cuda_errors(
          [](const auto& x) {
            return std::vector{dse_gate(x[0], x[1], x[2], x[3], x[4], 1e-6, true).value,
                               dse_gate(x[1], x[0], x[2], x[3], x[4], 1e-6, true).value,
                               dse_gate(x[0], x[0], x[0], x[3], x[4], 1e-6, true).value};
          },
          inputs_of(70, width), dtype);
      CHECK(errors.outputs < cuda_tolerance(dtype));
      CHECK(errors.gradients < cuda_tolerance(dtype));
    }
  }
}
