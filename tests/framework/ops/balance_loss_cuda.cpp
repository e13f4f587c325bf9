#include <cmath>

#include "framework/ops/balance_loss.h"
#include "framework/ops/router.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/routing_samples.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

Tensor positive(const Shape& shape, std::uint64_t seed) {
  Tensor t = random(shape, seed);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = std::exp(t.data<double>()[i]);
  return t;
}

Tensor counts(std::int64_t size) {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < size; ++i) values.push_back(i * i % 17);
  return Tensor::from(values, {size});
}

void check(const TensorFunction& f, const std::vector<CudaInput>& inputs) {
  const auto errors = cuda_errors(f, inputs, DType::f32);
  CHECK(errors.outputs < cuda_tolerance(DType::f32));
  CHECK(errors.gradients < cuda_tolerance(DType::f32));
}

}  // namespace

TEST_CASE("balance losses on CUDA equal those on the CPU", "[gpu][ops]") {
  for (const std::int64_t experts : {6, 64, 510}) {
    for (const std::int64_t n : {0, 1, 37, 4100}) {
      INFO(n << " x " << experts);
      const Tensor scores = positive({n, experts}, 1);
      const std::int64_t t = n + 1;
      check([](const auto& x) { return std::vector{normalize_scores(x[0])}; }, {scores});
      check([&](const auto& x) { return std::vector{expert_balance_loss(x[0], x[1], 2, t, 0.3)}; },
            {scores, counts(experts)});
      check(
          [&](const auto& x) { return std::vector{device_balance_loss(x[0], x[1], 2, 2, t, 0.3)}; },
          {scores, counts(experts)});
      check(
          [&](const auto& x) {
            return std::vector{communication_balance_loss(x[0], x[1], 1, t, 0.3)};
          },
          {scores, counts(experts / 2)});
      check([&](const auto& x) { return std::vector{router_z_loss(x[0], t, 0.3)}; },
            {random({n, experts}, 2, 3.0)});
      // Several losses add their gradients.
      check(
          [&](const auto& x) {
            const Tensor s = x[0];
            return std::vector{expert_balance_loss(s, x[1], 2, t, 0.3), router_z_loss(s, t, 0.2),
                               device_balance_loss(s, x[1], 2, 2, t, 0.1)};
          },
          {scores, counts(experts)});
    }
  }
}

TEST_CASE("the sequence-wise loss on CUDA equals that on the CPU", "[gpu][ops]") {
  struct Case {
    std::int64_t sequences, length, experts, k;
  };
  for (const Case& c : {Case{1, 1, 1, 1}, Case{3, 7, 6, 2}, Case{2, 1000, 64, 6},
                        Case{70, 33, 130, 8}, Case{0, 4, 8, 2}}) {
    for (const bool normalize : {false, true}) {
      INFO(c.sequences << " x " << c.length << " x " << c.experts);
      // between 1 and 55: as exponentials of logits
      Tensor scores = separated_logits(c.sequences * c.length, c.experts, 3);
      for (std::int64_t i = 0; i < scores.numel(); ++i) {
        scores.data<double>()[i] = std::exp(2.0 + scores.data<double>()[i]);
      }
      check(
          [&](const auto& x) {
            return std::vector{
                sequence_balance_loss(x[0], c.length, c.k, normalize, c.sequences + 1, 0.3)};
          },
          {scores});
    }
  }
}

TEST_CASE("group token counts on CUDA equal those on the CPU", "[gpu][ops]") {
  for (const std::int64_t groups : {1, 4, 64}) {
    for (const std::int64_t n : {0, 1, 50001}) {
      const auto f = [&](const auto& x) {
        return std::vector{group_token_counts(x[0], 64, groups)};
      };
      check(f, {random_experts(n, 6, 64, 0.2, 4)});
    }
  }
}

TEST_CASE("losses on CUDA give the same bits again", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor logits = random({20001, 64}, 5).to(DType::f32).to(device);
  const Tensor count = counts(64).to(device);
  const auto run = [&] {
    return std::pair{router_z_loss(logits, 20001).item(),
                     expert_balance_loss(logits, count, 6, 20001).item()};
  };
  const auto first = run();
  for (int i = 0; i < 20; ++i) CHECK(run() == first);
}
