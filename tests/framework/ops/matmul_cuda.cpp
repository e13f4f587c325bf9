#include <array>
#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/gemm_cuda.h"
#include "framework/ops/matmul.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

// y and the gradients of x and w for a gradient g of y.
std::vector<Tensor> run_linear(const Tensor& x, const Tensor& w, const Tensor& g,
                               Tape::WeightGradients mode) {
  const Tensor input = make_leaf(x);
  const Tensor leaf = make_leaf(w);
  Tape tape;
  Tensor y;
  {
    const Tape::Scope recording(tape);
    y = linear(input, leaf, MatmulPrecision::f32);
  }
  tape.backward(y, g, mode);
  if (mode == Tape::WeightGradients::deferred) CHECK_FALSE(leaf.grad().defined());
  tape.run_deferred();
  return {y.detach(), input.grad(), leaf.grad()};
}

double error(const Tensor& cuda, const Tensor& cpu) {
  return relative_error(cuda.to(Device{}).to(DType::f64), cpu);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor p = a.to(Device{});
  const Tensor q = b.to(Device{});
  return std::memcmp(p.raw(), q.raw(), static_cast<std::size_t>(p.bytes())) == 0;
}

}  // namespace

TEST_CASE("products on CUDA equal those on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double tolerance = cuda_tolerance(dtype);
    for (const auto& [m, n, k] :
         {std::array{1, 1, 1}, std::array{5, 3, 7}, std::array{33, 17, 65}, std::array{64, 1, 32},
          std::array{1, 70, 129}, std::array{300, 256, 512}, std::array{129, 520, 1000}}) {
      for (const bool ta : {false, true}) {
        for (const bool tb : {false, true}) {
          INFO(name_of(dtype) << " " << m << " x " << n << " x " << k << ", " << ta << tb);
          const CudaErrors errors =
              cuda_errors([=](const auto& x) { return std::vector{matmul(x[0], x[1], ta, tb)}; },
                          {random(ta ? Shape{k, m} : Shape{m, k}, 1),
                           random(tb ? Shape{n, k} : Shape{k, n}, 2)},
                          dtype);
          CHECK(errors.outputs < tolerance);
          CHECK(errors.gradients < tolerance);
        }
      }
      const CudaErrors errors = cuda_errors(
          [](const auto& x) {
            const Tensor h = scale(x[0], 1.0);  // its gradient is added to in its own dtype
            return std::vector{linear(h, x[1]), linear(x[2], x[1]), linear(h, x[1])};
          },
          {random({3, m, k}, 1), weight(random({n, k}, 2)), random({m, k}, 3)}, dtype);
      CHECK(errors.outputs < tolerance);
      CHECK(errors.gradients < tolerance);
    }
  }
}

TEST_CASE("products of empty matrices on CUDA", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [m, n, k] : {std::array{0, 4, 3}, std::array{3, 0, 4}, std::array{2, 2, 0}}) {
      const CudaErrors errors =
          cuda_errors([](const auto& x) { return std::vector{linear(x[0], x[1])}; },
                      {random({m, k}, 1), weight(random({n, k}, 2))}, dtype);
      CHECK(errors.outputs < 1e-5);
      CHECK(errors.gradients < 1e-5);
    }
    const Tensor y =
        matmul(Tensor::zeros({2, 0}, dtype, device), Tensor::zeros({0, 2}, dtype, device));
    CHECK(y.to(Device{}).to(DType::f64).to_vector<double>() == std::vector<double>(4, 0.0));
  }
}

TEST_CASE("gradients of bf16 weights on CUDA are f32 and add up", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor x = random({70, 40}, 1).to(DType::bf16);
  const Tensor w = random({24, 40}, 2).to(DType::bf16);
  const Tensor g = random({70, 24}, 3).to(DType::bf16);
  const Tensor exact = matmul(g.to(DType::f64), x.to(DType::f64), true, false);
  const Tensor leaf = make_leaf(w.to(device));
  for (const double times : {1.0, 2.0, 3.0}) {
    Tape tape;
    Tensor y;
    {
      const Tape::Scope recording(tape);
      y = linear(x.to(device), leaf);
    }
    tape.backward(y, g.to(device));
    REQUIRE(leaf.grad().dtype() == DType::f32);
    Tensor expected = exact.clone();
    for (int i = 0; i < expected.numel(); ++i) expected.data<double>()[i] *= times;
    CHECK(error(leaf.grad(), expected) < 1e-5);
  }
}

TEST_CASE("router logits on CUDA are as exact as f32", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const auto& [n, width, experts] : {std::array{1, 8, 4}, std::array{37, 129, 5},
                                          std::array{1000, 512, 64}, std::array{513, 2048, 72}}) {
    INFO(n << " tokens, width " << width << ", " << experts << " experts");
    const Tensor x = random({n, width}, 1).to(DType::bf16);
    const Tensor w = random({experts, width}, 2).to(DType::f32);
    const Tensor g = random({n, experts}, 3).to(DType::f32);
    const std::vector<Tensor> exact = run_linear(x.to(DType::f64), w.to(DType::f64),
                                                 g.to(DType::f64), Tape::WeightGradients::now);
    std::vector<std::vector<Tensor>> runs;
    for (const auto mode : {Tape::WeightGradients::now, Tape::WeightGradients::deferred}) {
      runs.push_back(run_linear(x.to(device), w.to(device), g.to(device), mode));
      const std::vector<Tensor>& y = runs.back();
      CHECK(y[0].dtype() == DType::f32);
      CHECK(error(y[0], exact[0]) < 4e-6);
      CHECK(error(y[1], exact[1]) < 5e-3);
      CHECK(error(y[2], exact[2]) < 1e-5);
    }
    for (int i = 0; i < 3; ++i) CHECK(same_bits(runs[0][i], runs[1][i]));
  }
  CHECK_THROWS_AS(linear(random({3, 4}, 1).to(DType::bf16).to(device),
                         random({3, 4}, 2).to(DType::f32).to(device), MatmulPrecision::bf16),
                  ArgumentError);
}

TEST_CASE("router products beside other uses on CUDA", "[gpu][ops]") {
  const CudaErrors errors = cuda_errors(
      [](const auto& x) {
        return std::vector{linear(x[0], x[1], MatmulPrecision::f32),
                           linear(x[0], x[1], MatmulPrecision::f32), linear(x[0], x[2])};
      },
      {random({2, 33, 40}, 1), vector(random({7, 40}, 2)), weight(random({40, 40}, 3))},
      DType::bf16);
  CHECK(errors.outputs < 1e-2);
  CHECK(errors.gradients < 1e-2);
}

TEST_CASE("batches of products on CUDA", "[gpu][ops]") {
  const Device device = cuda_device();
  if constexpr (kBuiltWithCuda) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const auto& [m, n, k] :
           {std::array{5, 3, 7}, std::array{64, 64, 128}, std::array{96, 200, 72}}) {
        for (const bool ta : {false, true}) {
          for (const bool tb : {false, true}) {
            const Tensor a = random(ta ? Shape{3, k, m} : Shape{3, m, k}, 1).to(dtype);
            const Tensor b = random(tb ? Shape{3, n, k} : Shape{3, k, n}, 2).to(dtype);
            const Tensor c = random({3, m, n}, 3).to(dtype);
            const Tensor expected = c.to(DType::f64);
            for (int i = 0; i < 3; ++i) {
              const auto part = [&](const Tensor& x) {
                return x.slice(i, i + 1).reshape({x.dim(1), x.dim(2)}).to(DType::f64);
              };
              const Tensor p = part(a);
              const Tensor q = part(b);
              gemm<double>(ta, tb, m, n, k, 2.0, p.data<double>(), p.dim(1), q.data<double>(),
                           q.dim(1), -0.5, expected.data<double>() + i * m * n, n);
            }
            const Tensor out = c.to(device).clone();
            cuda::multiply_batched(a.to(device), ta, b.to(device), tb, out, 2.0f, -0.5f);
            CHECK(error(out, expected) < cuda_tolerance(dtype));
          }
        }
      }
    }
  }
}
