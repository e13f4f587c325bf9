#include <cmath>
#include <initializer_list>

#include "framework/autograd/tape.h"
#include "framework/core/determinism.h"
#include "framework/ops/attention.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

struct Case {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(dim)); }
  std::vector<CudaInput> inputs() const {
    return {random({batch, heads, length, dim}, 1), random({batch, kv_heads, length, dim}, 2),
            random({batch, kv_heads, length, value_dim}, 3)};
  }
};

void check(const Case& c, DType dtype) {
  INFO(name_of(dtype) << ", heads " << c.heads << " / " << c.kv_heads << ", length " << c.length
                      << ", dims " << c.dim << ", " << c.value_dim);
  const auto errors = cuda_errors(
      [&](const auto& x) { return std::vector{causal_attention(x[0], x[1], x[2], c.scale())}; },
      c.inputs(), dtype);
  CHECK(errors.outputs < cuda_tolerance(dtype));
  CHECK(errors.gradients < cuda_tolerance(dtype));
}

struct Deterministic {
  explicit Deterministic(bool on) { set_deterministic(on); }
  ~Deterministic() { set_deterministic(true); }
};

// Output and gradients, one after the other.
std::vector<Tensor> attend(const Case& c, DType dtype) {
  std::vector<Tensor> x;
  for (const CudaInput& input : c.inputs()) {
    x.push_back(make_leaf(input.value.to(dtype).to(cuda_device())));
  }
  Tape tape;
  Tensor o;
  {
    const Tape::Scope recording(tape);
    o = causal_attention(x[0], x[1], x[2], c.scale());
  }
  tape.backward(o, random(o.shape(), 4).to(dtype).to(o.device()));
  std::vector<Tensor> results{o};
  for (const Tensor& leaf : x) results.push_back(leaf.grad());
  for (Tensor& result : results) result = result.to(Device{}).to(DType::f64);
  return results;
}

void check_lengths(std::initializer_list<std::int64_t> lengths, DType dtype) {
  for (const std::int64_t length : lengths) {
    for (const std::int64_t dim : {64, 128, 96, 40}) {
      check({2, 4, 2, length, dim, dim}, dtype);
    }
  }
}

void check_shapes(DType dtype) {
  check_lengths({2, 7, 64, 100, 257}, dtype);
  check({3, 2, 2, 130, 128, 128}, dtype);  // one key head a query head
  check({1, 8, 1, 300, 64, 64}, dtype);    // one for all
  check({1, 4, 2, 200, 128, 64}, dtype);   // values of another width
  check({1, 4, 2, 200, 64, 128}, dtype);
  check({1, 2, 1, 200, 192, 128}, dtype);
  check({1, 3, 1, 131, 64, 64}, dtype);  // odd sums of rows
  check({1, 1, 1, 77, 128, 128}, dtype);
  check({1, 2, 2, 150, 256, 256}, dtype);
  check({1, 2, 1, 150, 35, 50}, dtype);  // widths that cuDNN does not take
  check({1, 2, 1, 90, 200, 201}, dtype);
}

void check_repeats(std::initializer_list<std::int64_t> lengths) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t length : lengths) {
      const Case c{2, 8, 2, length, 128, 128};
      const std::vector<Tensor> first = attend(c, dtype);
      for (int run = 0; run < 3; ++run) {
        const std::vector<Tensor> again = attend(c, dtype);
        for (std::size_t i = 0; i < first.size(); ++i) {
          CHECK(relative_error(again[i], first[i]) == 0.0);
        }
      }
    }
  }
}

}  // namespace

// Tests marked long take the same kernels over sequences that are too long for a race checker.

TEST_CASE("attention in f32 on CUDA equals that on the CPU", "[gpu][ops]") {
  check_shapes(DType::f32);
}

TEST_CASE("attention in bf16 on CUDA equals that on the CPU", "[gpu][ops]") {
  check_shapes(DType::bf16);
}

TEST_CASE("long attention on CUDA equals that on the CPU", "[gpu][ops][long]") {
  for (const DType dtype : {DType::f32, DType::bf16}) check_lengths({1024}, dtype);
}

TEST_CASE("attention without determinism on CUDA equals that on the CPU", "[gpu][ops]") {
  const Deterministic off(false);
  for (const std::int64_t length : {7, 100, 1024}) {
    for (const std::int64_t dim : {64, 128, 96}) {
      check({2, 4, 2, length, dim, dim}, DType::bf16);
    }
  }
}

// Its probability is one, so that the gradients of query and key are rounding errors of zero.
TEST_CASE("attention to one position on CUDA", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto errors = cuda_errors(
        [](const auto& x) {
          const Tensor other = random({2, 4, 1, 64}, 1).to(x[0].dtype()).to(x[0].device());
          const Tensor key = random({2, 2, 1, 64}, 2).to(x[0].dtype()).to(x[0].device());
          return std::vector{causal_attention(other, key, x[0], 0.125)};
        },
        {random({2, 2, 1, 64}, 3)}, dtype);
    CHECK(errors.outputs < cuda_tolerance(dtype));
    CHECK(errors.gradients < cuda_tolerance(dtype));
  }
}

TEST_CASE("attention on CUDA adds the gradients of a tensor in several roles", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto errors = cuda_errors(
        [](const auto& x) { return std::vector{causal_attention(x[0], x[0], x[0], 0.125)}; },
        {random({2, 2, 130, 64}, 1)}, dtype);
    CHECK(errors.outputs < cuda_tolerance(dtype));
    CHECK(errors.gradients < cuda_tolerance(dtype));
  }
}

TEST_CASE("attention on CUDA gives the same bits in every run", "[gpu][ops]") {
  check_repeats({130, 257});
}

TEST_CASE("long attention on CUDA gives the same bits in every run", "[gpu][ops][long]") {
  check_repeats({1000, 2048});
}

// Scores of 3 GiB in parts: by key heads in one long sequence, by sequences otherwise.
TEST_CASE("deterministic attention takes long batches in parts", "[gpu][ops][slow]") {
  for (const Case& c : {Case{1, 6, 3, 16384, 64, 64}, Case{6, 4, 1, 8192, 64, 64}}) {
    const std::vector<Tensor> whole = [&] {
      const Deterministic off(false);
      return attend(c, DType::bf16);
    }();
    const std::vector<Tensor> parts = attend(c, DType::bf16);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      CHECK(relative_error(parts[i], whole[i]) < 1e-2);
    }
  }
}

TEST_CASE("attention on CUDA without sequences or positions", "[gpu][ops]") {
  for (const Shape& shape : {Shape{0, 2, 5, 64}, Shape{2, 2, 0, 64}}) {
    const Tensor x = make_leaf(Tensor::empty(shape, DType::bf16, cuda_device()));
    Tape tape;
    Tensor o;
    {
      const Tape::Scope recording(tape);
      o = causal_attention(x, x, x, 1.0);
    }
    CHECK(o.shape() == Shape{shape[0], shape[2], 2, 64});
    tape.backward(o, Tensor::empty_like(o));
    CHECK(x.grad().numel() == 0);
  }
}
