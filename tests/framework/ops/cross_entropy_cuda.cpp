#include <array>
#include <cmath>
#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/ops/cross_entropy.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

Tensor targets_of(std::int64_t n, std::int64_t vocabulary) {
  Tensor targets = Tensor::empty({n}, DType::i32);
  for (std::int64_t t = 0; t < n; ++t) {
    targets.data<std::int32_t>()[t] =
        static_cast<std::int32_t>(t % 7 == 3 ? -1 : (t * 7919 + 5) % vocabulary);
  }
  return targets;
}

// Logits of about unit size, so that their rounding to bf16 stays small in the gradient.
Tensor head_of(std::int64_t vocabulary, std::int64_t width) {
  return random({vocabulary, width}, 2, 1.0 / std::sqrt(static_cast<double>(width)));
}

void check(std::int64_t n, std::int64_t width, std::int64_t vocabulary, double z_weight,
           DType dtype) {
  INFO(name_of(dtype) << " " << n << " tokens, width " << width << ", vocabulary " << vocabulary
                      << ", z " << z_weight);
  const CudaErrors errors = cuda_errors(
      [=](const auto& x) {
        const CrossEntropy y =
            linear_cross_entropy(x[0], x[1], x[2], 3.0 / static_cast<double>(n), z_weight);
        return std::vector{y.loss, y.nll_sum};
      },
      {random({n, width}, 1), weight(head_of(vocabulary, width)), targets_of(n, vocabulary)},
      dtype);
  CHECK(errors.outputs < cuda_tolerance(dtype));
  CHECK(errors.gradients < cuda_tolerance(dtype));
}

struct Gradients {
  Tensor loss, hidden, head;
};

Gradients run(const Tensor& hidden, const Tensor& head_leaf, const Tensor& targets) {
  const Tensor input = make_leaf(hidden);
  Tape tape;
  Tensor loss;
  {
    const Tape::Scope recording(tape);
    loss = linear_cross_entropy(input, head_leaf, targets, 0.01, 1e-4).loss;
  }
  tape.backward(loss);
  return {loss.to(Device{}), input.grad().to(Device{}), head_leaf.grad().to(Device{})};
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

}  // namespace

TEST_CASE("linear_cross_entropy on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const double z_weight : {0.0, 0.3}) {
      for (const auto& [n, width, vocabulary] :
           {std::array{9, 5, 3}, std::array{300, 24, 65}, std::array{64, 16, 1000},
            std::array{40, 32, 8191}, std::array{37, 64, 16385}, std::array{33, 64, 32000}}) {
        check(n, width, vocabulary, z_weight, dtype);
      }
    }
    // Rows divided among 2, 4 and 8 blocks, and rows too wide for that.
    for (const std::int64_t vocabulary : {33001, 50257, 70001, 131072, 151936, 262144, 262147}) {
      check(19, 16, vocabulary, 0.1, dtype);
    }
    check(8300, 16, 65, 0.1, dtype);  // two chunks
  }
}

TEST_CASE("linear_cross_entropy on CUDA is stable for large logits", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor hidden = Tensor::full({1, 1}, 1.0, DType::f32, device);
  const Tensor head = Tensor::from(std::vector<float>{10000.0f, 0.0f}, {2, 1}).to(device);
  const auto loss = [&](std::int32_t target) {
    return linear_cross_entropy(hidden, head, Tensor::from(std::vector{target}, {1}).to(device),
                                1.0, 0.0)
        .loss.item();
  };
  CHECK(loss(0) == Approx(0.0).margin(1e-6));
  CHECK(loss(1) == Approx(10000.0));
  head.fill(std::nan(""));
  CHECK(std::isnan(loss(1)));
}

TEST_CASE("linear_cross_entropy on CUDA of nothing", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const std::int64_t n : {0, 3}) {
    const Tensor head = make_leaf(random({11, 8}, 1).to(DType::bf16).to(device));
    const Tensor hidden = Tensor::full({n, 8}, 0.5, DType::bf16, device);
    const Gradients y = run(hidden, head, Tensor::full({n}, -1.0, DType::i32, device));
    CHECK(y.loss.item() == 0.0);
    CHECK(y.head.to_vector<float>() == std::vector<float>(88, 0.0f));
  }
}

TEST_CASE("linear_cross_entropy on CUDA repeats bit for bit, wherever the gradient lies",
          "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor hidden = random({9000, 40}, 1).to(DType::bf16).to(device);
  const Tensor head = head_of(515, 40).to(DType::bf16).to(device);
  const Tensor targets = targets_of(9000, 515).to(device);
  const Tensor leaf = make_leaf(head);
  const Gradients first = run(hidden, leaf, targets);  // makes the gradient's buffer
  const void* const buffer = leaf.grad().raw();
  leaf.slot()->fresh = true;
  leaf.slot()->grad.fill(std::nan(""));
  const Gradients second = run(hidden, leaf, targets);  // uses it
  CHECK(leaf.grad().raw() == buffer);
  CHECK(same_bits(first.loss, second.loss));
  CHECK(same_bits(first.hidden, second.hidden));
  CHECK(same_bits(first.head, second.head));
  const Gradients third = run(hidden, leaf, targets);  // adds to it
  const Tensor sum = first.head.to(DType::f64);
  for (std::int64_t i = 0; i < sum.numel(); ++i) sum.data<double>()[i] *= 2.0;
  CHECK(relative_error(third.head.to(DType::f64), sum) < 1e-6);
}
