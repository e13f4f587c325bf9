#include "framework/ops/matmul.h"

#include "framework/autograd/tape.h"
#include "framework/ops/mixed_linear_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kLeastRows = 8;

// Rows of a tensor of any rank: [..., width] → [rows, width].
Tensor as_rows(const Tensor& x) {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < x.rank(); ++i) rows *= x.dim(i);
  return x.reshape({rows, x.dim(-1)});
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  FULCRUM_REQUIRE(a.rank() == 2 && b.rank() == 2 && a.dtype() == b.dtype(),
                  "matmul: needs two matrices of one dtype; got {} {} and {} {}", a.dtype(),
                  a.shape(), b.dtype(), b.shape());
  FULCRUM_REQUIRE(a.dim(ta ? 0 : 1) == b.dim(tb ? 1 : 0),
                  "matmul: inner dimensions must agree; got {}{} and {}{}", a.shape(),
                  ta ? " transposed" : "", b.shape(), tb ? " transposed" : "");
  const MatmulPrecision precision = matmul_precision();
  const Tensor p = matmul_operand(a.detach(), precision);
  const Tensor q = matmul_operand(b.detach(), precision);
  Tensor y = Tensor::empty({a.dim(ta ? 1 : 0), b.dim(tb ? 0 : 1)}, a.dtype(), a.device());
  multiply(p, ta, q, tb, y, false);
  if (Tape* tape = Tape::recording({a, b})) {
    tape->record("matmul", {a, b}, {&y}, [p, q, ta, tb, precision](Backward& back) {
      const Tensor g = matmul_operand(back.grad(0), precision);
      if (back.needs(0)) {
        const auto [out, add] = back.target(0);
        ta ? multiply(q, tb, g, true, out, add) : multiply(g, false, q, !tb, out, add);
      }
      if (back.needs(1)) {
        const auto [out, add] = back.target(1);
        tb ? multiply(g, true, p, ta, out, add) : multiply(p, !ta, g, false, out, add);
      }
    });
  }
  return y;
}

Tensor linear(const Tensor& x, const Tensor& weight, MatmulPrecision precision) {
  const bool mixed = x.device().is_cuda() && x.dtype() == DType::bf16 &&
                     weight.dtype() == DType::f32 && precision == MatmulPrecision::f32;
  FULCRUM_REQUIRE(x.rank() >= 1 && weight.rank() == 2 && (x.dtype() == weight.dtype() || mixed),
                  "linear: needs x [..., in] and weight [out, in] of one dtype, or bf16 and f32 on "
                  "CUDA with precision f32; got {} {} and {} {}",
                  x.dtype(), x.shape(), weight.dtype(), weight.shape());
  FULCRUM_REQUIRE(x.dim(-1) == weight.dim(1),
                  "linear: the last dimension of x must be the weight's input; got {} and {}",
                  x.shape(), weight.shape());
  if constexpr (kBuiltWithCuda) {
    if (mixed) return cuda::mixed_linear(x, weight);
  }
  // For few rows, as in generation, rounding the weight would cost more than the product.
  if (as_rows(x).dim(0) < kLeastRows) precision = MatmulPrecision::f32;
  const Tensor rows = matmul_operand(as_rows(x.detach()), precision);
  Shape shape = x.shape();
  shape[-1] = weight.dim(0);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  multiply(rows, false, matmul_operand(weight.detach(), precision), true, as_rows(y), false);
  if (Tape* tape = Tape::recording({x, weight})) {
    // The weight is rounded again in backward rather than kept twice.
    tape->record(
        "linear", {x, weight}, {&y}, [rows, weight = weight.detach(), precision](Backward& b) {
          const Tensor g = matmul_operand(as_rows(b.grad(0)), precision);
          if (b.needs(0)) {
            const auto [out, add] = b.target(0);
            multiply(g, false, matmul_operand(weight, precision), false, as_rows(out), add);
          }
          b.weight_gradient(1, [rows, g, weight](GradSlot& slot) {
            const auto [out, add] = slot.target(weight.shape(), weight.dtype(), weight.device());
            multiply(g, true, rows, false, out, add);
          });
        });
  }
  return y;
}

}  // namespace fulcrum::ops
