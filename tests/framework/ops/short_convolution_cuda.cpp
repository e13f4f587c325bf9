#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/ops/short_convolution.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::testing;
using ops::causal_convolution;
using ops::short_convolution;

namespace {

struct Case {
  std::int64_t batch, seq, width, taps, dilation;
  bool documents;
};

Tensor document_starts(std::int64_t batch, std::int64_t seq) {
  const Tensor start = Tensor::empty({batch, seq}, DType::i32);
  for (std::int64_t i = 0; i < batch * seq; ++i) {
    const std::int64_t t = i % seq;
    start.data<std::int32_t>()[i] = static_cast<std::int32_t>(t - t % (i < seq ? 7 : 23));
  }
  return start;
}

// The short convolution of the tests' inputs: x, norm, weight and, with documents, their starts.
std::vector<CudaInput> inputs_of(const Case& c) {
  std::vector<CudaInput> inputs{random({c.batch, c.seq, c.width}, 1), vector(random({c.width}, 2)),
                                vector(random({c.width, c.taps}, 3))};
  if (c.documents) inputs.emplace_back(document_starts(c.batch, c.seq));
  return inputs;
}

}  // namespace

TEST_CASE("the short convolution on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = cuda_tolerance(dtype);
    for (const Case& c : {Case{1, 1, 8, 4, 3, false},       // nothing to look back at
                          Case{2, 37, 384, 4, 3, false},    // a ring in f32
                          Case{3, 150, 384, 4, 3, true},    //
                          Case{1, 1500, 64, 4, 3, true},    // several strips
                          Case{2, 19, 516, 4, 2, true},     // a ring in bf16
                          Case{1, 1500, 1028, 4, 1, true},  // more warps than are summed at once
                          Case{3, 2500, 384, 4, 3, true},   // in every multiprocessor
                          Case{1, 40, 2560, 4, 3, false},   // the widest of one pass
                          Case{2, 71, 2560, 4, 3, true},    // in several strips
                          Case{1, 33, 2600, 4, 3, true},    // wider
                          Case{2, 70, 67, 4, 3, true},      // of odd size
                          Case{2, 70, 68, 3, 5, true},      // other taps
                          Case{1, 130, 36, 6, 1, false},    //
                          Case{2, 9, 12, 1, 1, false},      // none but itself
                          Case{2, 300, 132, 4, 40, false},  // reach of many positions
                          Case{0, 5, 8, 4, 3, false}}) {
      INFO(name_of(dtype) << " " << c.batch << " x " << c.seq << " x " << c.width << ", " << c.taps
                          << " taps, dilation " << c.dilation);
      const auto fused = cuda_errors(
          [&](const auto& x) {
            return std::vector{short_convolution(x[0], x[1], x[2], c.dilation, 1e-6,
                                                 c.documents ? x[3] : Tensor())};
          },
          inputs_of(c), dtype);
      CHECK(fused.outputs < tolerance);
      CHECK(fused.gradients < tolerance);
      const auto plain = cuda_errors(
          [&](const auto& x) {
            return std::vector{
                causal_convolution(x[0], x[2], c.dilation, c.documents ? x[3] : Tensor()),
                causal_convolution(x[0], x[2], c.dilation)};  // gradients add up
          },
          inputs_of(c), dtype);
      CHECK(plain.outputs < tolerance);
      CHECK(plain.gradients < tolerance);
    }
  }
}

TEST_CASE("the short convolution takes square means that are known", "[gpu][ops]") {
  // Not those of x, so that it shows whether they are used; no gradient flows through them.
  for (const std::int64_t width : {36, 37}) {
    const auto errors = cuda_errors(
        [](const auto& x) {
          const Tensor means = Tensor::full({18}, 0.7, x[1].dtype(), x[0].device());
          return std::vector{short_convolution(x[0], x[1], x[2], 3, 1e-6, {}, means)};
        },
        {random({2, 9, width}, 1), vector(random({width}, 2)), vector(random({width, 4}, 3))},
        DType::f32);
    CHECK(errors.outputs < 1e-5);
    CHECK(errors.gradients < 1e-5);
  }
}

TEST_CASE("gradients of short convolutions add up on CUDA", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto twice = cuda_errors(
        [](const auto& x) {
          return std::vector{short_convolution(x[0], x[1], x[2], 3, 1e-6),
                             short_convolution(x[0], x[1], x[2], 2, 1e-6)};
        },
        {random({2, 90, 384}, 1), vector(random({384}, 2)), vector(random({384, 4}, 3))}, dtype);
    CHECK(twice.outputs < cuda_tolerance(dtype));
    CHECK(twice.gradients < cuda_tolerance(dtype));
    // each of the inputs for itself
    for (const std::size_t wanted : {0, 1, 2}) {
      const auto one = cuda_errors(
          [wanted](const auto& x) {
            const auto only = [&](std::size_t i) { return i == wanted ? x[i] : x[i].detach(); };
            return std::vector{short_convolution(only(0), only(1), only(2), 3, 1e-6)};
          },
          {random({2, 90, 384}, 1), vector(random({384}, 2)), vector(random({384, 4}, 3))}, dtype);
      CHECK(one.gradients < cuda_tolerance(dtype));
    }
  }
}

TEST_CASE("the short convolution gives the same bits in every run", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const std::int64_t width : {384, 385, 1152}) {
    const auto run = [&] {
      const Tensor x = make_leaf(random({2, 700, width}, 1).to(DType::f32).to(device));
      const Tensor norm = make_leaf(random({width}, 2).to(DType::f32).to(device));
      const Tensor weight = make_leaf(random({width, 4}, 3).to(DType::f32).to(device));
      Tape tape;
      Tensor y;
      {
        const Tape::Scope recording(tape);
        y = short_convolution(x, norm, weight, 3, 1e-6);
      }
      tape.backward({y}, {random(y.shape(), 4).to(DType::f32).to(device)});
      return std::vector{y.detach().to(Device{}), x.grad().to(Device{}), norm.grad().to(Device{}),
                         weight.grad().to(Device{})};
    };
    const auto first = run();
    const auto second = run();
    for (std::size_t i = 0; i < first.size(); ++i) {
      CHECK(std::memcmp(first[i].raw(), second[i].raw(),
                        static_cast<std::size_t>(first[i].bytes())) == 0);
    }
  }
}
