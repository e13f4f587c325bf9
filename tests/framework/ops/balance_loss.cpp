#include "framework/ops/balance_loss.h"

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/router.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;

namespace {

double value(const Tensor& t) { return t.data<double>()[0]; }

Tensor counts(const std::vector<std::int64_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

Tensor positive(const Shape& shape, std::uint64_t seed) {
  Tensor t = random(shape, seed);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = std::exp(t.data<double>()[i]);
  return t;
}

}  // namespace

TEST_CASE("balanced routing costs exactly the weight", "[unit][ops]") {
  // Six tokens, four experts, top-2: each expert was chosen three times, scores are uniform.
  const Tensor scores = Tensor::full({6, 4}, 0.25, DType::f64);
  const Tensor even = counts({3, 3, 3, 3});
  CHECK(value(ops::expert_balance_loss(scores, even, 2, 6, 0.01)) == Approx(0.01));
  CHECK(value(ops::device_balance_loss(scores, even, 2, 2, 6, 0.05)) == Approx(0.05));
  // Every token visits both of the M = 2 groups it may.
  CHECK(value(ops::communication_balance_loss(scores, counts({6, 6}), 2, 6, 0.02)) == Approx(0.02));
}

TEST_CASE("balance losses follow their formulas", "[unit][ops]") {
  const std::int64_t n = 7, experts = 6, k = 2, groups = 3, top_groups = 2;
  const Tensor scores = positive({n, experts}, 1);
  const std::vector<std::int64_t> count = {5, 0, 1, 4, 3, 1};
  const std::vector<std::int64_t> sent = {5, 4, 3};
  double expert = 0.0, device = 0.0, communication = 0.0;
  for (std::int64_t d = 0; d < groups; ++d) {
    double mean_f = 0.0, sum_p = 0.0;
    for (std::int64_t i = 2 * d; i < 2 * d + 2; ++i) {
      const double f = static_cast<double>(experts * count[i]) / (k * n);
      double p = 0.0;
      for (std::int64_t t = 0; t < n; ++t) p += scores.data<double>()[t * experts + i] / n;
      expert += f * p;
      mean_f += f / 2;
      sum_p += p;
    }
    device += mean_f * sum_p;
    communication += static_cast<double>(groups * sent[d]) / (top_groups * n) * sum_p;
  }
  CHECK(value(ops::expert_balance_loss(scores, counts(count), k, n)) == Approx(expert));
  CHECK(value(ops::device_balance_loss(scores, counts(count), k, groups, n)) == Approx(device));
  CHECK(value(ops::communication_balance_loss(scores, counts(sent), top_groups, n)) ==
        Approx(communication));
}

TEST_CASE("losses of the ranks add up to the loss of the batch", "[unit][ops]") {
  const Tensor scores = positive({9, 4}, 2);
  const Tensor count = counts({3, 8, 5, 2});
  const auto loss = [&](std::int64_t begin, std::int64_t end) {
    return value(ops::expert_balance_loss(scores.slice(begin, end), count, 2, 9));
  };
  CHECK(loss(0, 2) + loss(2, 2) + loss(2, 9) == Approx(loss(0, 9)));
  const auto z = [&](std::int64_t begin, std::int64_t end) {
    return value(ops::router_z_loss(scores.slice(begin, end), 9));
  };
  CHECK(z(0, 2) + z(2, 2) + z(2, 9) == Approx(z(0, 9)));
  const auto sequence = [&](std::int64_t begin, std::int64_t end) {
    return value(ops::sequence_balance_loss(scores.slice(begin, end), 3, 2, true, 3));
  };
  CHECK(sequence(0, 3) + sequence(3, 9) == Approx(sequence(0, 9)));
}

TEST_CASE("group token counts count a token once a group", "[unit][ops]") {
  const Tensor experts = Tensor::from<std::int32_t>({0, 1, 5,   //
                                                     4, 2, -1,  //
                                                     3, 2, 0},
                                                    {3, 3});
  CHECK(ops::group_token_counts(experts, 6, 3).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{2, 2, 2});
  CHECK(
      ops::group_token_counts(Tensor::empty({0, 3}, DType::i32), 6, 2).to_vector<std::int64_t>() ==
      std::vector<std::int64_t>{0, 0});
}

TEST_CASE("the sequence-wise loss follows its formula", "[unit][ops]") {
  const std::int64_t sequences = 2, length = 3, experts = 5, k = 2;
  const Tensor s = positive({sequences * length, experts}, 3);
  const double* p = s.data<double>();
  double expected = 0.0;
  for (std::int64_t q = 0; q < sequences; ++q) {
    for (std::int64_t i = 0; i < experts; ++i) {
      double f = 0.0, mean = 0.0;
      for (std::int64_t t = q * length; t < (q + 1) * length; ++t) {
        double sum = 0.0;
        int larger = 0;
        for (std::int64_t j = 0; j < experts; ++j) {
          sum += p[t * experts + j];
          larger += p[t * experts + j] > p[t * experts + i];
        }
        if (larger < k) f += static_cast<double>(experts) / (k * length);
        mean += p[t * experts + i] / sum / length;
      }
      expected += f * mean / sequences;
    }
  }
  CHECK(value(ops::sequence_balance_loss(s, length, k, true, sequences, 0.5)) ==
        Approx(0.5 * expected));
}

TEST_CASE("balance loss gradients", "[unit][ops]") {
  const Tensor s = positive({6, 4}, 4);
  const Tensor count = counts({5, 0, 4, 3});
  const auto check = [&](const auto& loss) {
    return gradient_error([&](const auto& x) { return loss(x[0]); }, {s});
  };
  CHECK(check([&](const Tensor& x) { return ops::normalize_scores(x); }) < 1e-8);
  CHECK(check([&](const Tensor& x) { return ops::expert_balance_loss(x, count, 2, 6, 0.3); }) <
        1e-8);
  CHECK(check([&](const Tensor& x) { return ops::device_balance_loss(x, count, 2, 2, 6, 0.3); }) <
        1e-8);
  CHECK(check([&](const Tensor& x) {
          return ops::communication_balance_loss(x, counts({6, 3}), 1, 6, 0.3);
        }) < 1e-8);
  for (const bool normalize : {false, true}) {
    CHECK(check([&](const Tensor& x) {
            return ops::sequence_balance_loss(x, 3, 2, normalize, 2, 0.3);
          }) < 1e-8);
  }
  CHECK(check([&](const Tensor& x) { return ops::router_z_loss(x, 6, 0.3); }) < 1e-8);
  // Several losses on the same scores add their gradients.
  CHECK(check([&](const Tensor& x) {
          const Tensor scores = ops::scale(x, 2.0);
          return ops::add(ops::add(ops::expert_balance_loss(scores, count, 2, 6),
                                   ops::device_balance_loss(scores, count, 2, 2, 6)),
                          ops::router_z_loss(scores, 6));
        }) < 1e-8);
}

TEST_CASE("the expert loss reaches the router's logits", "[unit][ops]") {
  ops::RouterOptions options;
  options.top_k = 2;
  const Tensor count = counts({4, 0, 5, 3, 2});
  CHECK(gradient_error(
            [&](const auto& x) {
              const auto r = ops::route(x[0], {}, options);
              return ops::expert_balance_loss(r.scores, count, 2, 7);
            },
            {random({7, 5}, 6)}) < 1e-8);
}

TEST_CASE("z-loss of uniform logits", "[unit][ops]") {
  const double expected = std::log(8.0) * std::log(8.0);
  CHECK(value(ops::router_z_loss(Tensor::zeros({3, 8}, DType::f64), 3)) == Approx(expected));
  // Large logits do not overflow.
  CHECK(value(ops::router_z_loss(Tensor::full({1, 1}, 1e4, DType::f64), 1)) == Approx(1e8));
}

TEST_CASE("balance losses without tokens are zero", "[unit][ops]") {
  const Tensor none = make_leaf(Tensor::empty({0, 4}, DType::f64));
  Tape tape;
  Tensor total;
  {
    Tape::Scope recording(tape);
    total = ops::add(
        ops::expert_balance_loss(none, counts({1, 1, 0, 0}), 2, 1),
        ops::add(ops::sequence_balance_loss(none, 3, 2, true, 1), ops::router_z_loss(none, 1)));
  }
  tape.backward(total);
  CHECK(value(total) == 0.0);
}

TEST_CASE("balance losses refuse wrong arguments", "[unit][ops]") {
  const Tensor s = positive({6, 4}, 1);
  const Tensor count = counts({3, 3, 3, 3});
  CHECK_THROWS_AS(ops::expert_balance_loss(s.reshape({24}), count, 2, 6), ArgumentError);
  CHECK_THROWS_AS(ops::expert_balance_loss(s, counts({1, 2, 3}), 2, 6), ArgumentError);
  CHECK_THROWS_AS(ops::expert_balance_loss(s, Tensor::zeros({4}, DType::f32), 2, 6), ArgumentError);
  CHECK_THROWS_AS(ops::expert_balance_loss(s, {}, 2, 6), ArgumentError);
  CHECK_THROWS_AS(ops::expert_balance_loss(s, count, 5, 6), ArgumentError);
  CHECK_THROWS_AS(ops::expert_balance_loss(s, count, 2, 0), ArgumentError);
  CHECK_THROWS_AS(ops::device_balance_loss(s, count, 2, 3, 6), ArgumentError);
  CHECK_THROWS_AS(ops::communication_balance_loss(s, counts({1, 2, 3}), 1, 6), ArgumentError);
  CHECK_THROWS_AS(ops::communication_balance_loss(s, counts({1, 2}), 3, 6), ArgumentError);
  CHECK_THROWS_AS(ops::sequence_balance_loss(s, 4, 2, true, 1), ArgumentError);
  CHECK_THROWS_AS(ops::sequence_balance_loss(s, 3, 0, true, 1), ArgumentError);
  CHECK_THROWS_AS(ops::router_z_loss(s, 0), ArgumentError);
  CHECK_THROWS_AS(ops::group_token_counts(Tensor::zeros({1, 2}, DType::i32), 6, 4), ArgumentError);
}
