#include "framework/ops/cross_entropy.h"

#include <array>
#include <cmath>
#include <string>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/gemm.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

Tensor targets_of(const std::vector<std::int32_t>& targets) {
  return Tensor::from(targets, {static_cast<std::int64_t>(targets.size())});
}

std::vector<std::int32_t> pseudo_targets(int n, int vocabulary) {
  std::vector<std::int32_t> targets(static_cast<std::size_t>(n));
  for (int t = 0; t < n; ++t) targets[t] = t % 7 == 3 ? -1 : (t * 31 + 5) % vocabulary;
  return targets;
}

// The definition.
double reference(const Tensor& hidden, const Tensor& head, const std::vector<std::int32_t>& targets,
                 double scale, double z_weight, double* nll_sum = nullptr) {
  const std::int64_t d = hidden.dim(1), vocabulary = head.dim(0);
  double loss = 0.0, nll = 0.0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0) continue;
    double sum = 0.0, chosen = 0.0;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      double logit = 0.0;
      for (std::int64_t i = 0; i < d; ++i)
        logit += hidden.data<double>()[t * d + i] * head.data<double>()[v * d + i];
      sum += std::exp(logit);
      if (v == targets[t]) chosen = logit;
    }
    nll += std::log(sum) - chosen;
    loss += std::log(sum) - chosen + z_weight * std::log(sum) * std::log(sum);
  }
  if (nll_sum != nullptr) *nll_sum = nll;
  return scale * loss;
}

}  // namespace

TEST_CASE("linear_cross_entropy equals its definition", "[unit][ops]") {
  for (const auto& [n, d, vocabulary] : {std::array{1, 1, 1}, std::array{9, 5, 11},
                                         std::array{1100, 3, 17}, std::array{3, 4, 2500}}) {
    const Tensor hidden = random({n, d}, 1);
    const Tensor head = random({vocabulary, d}, 2);
    const auto targets = pseudo_targets(n, vocabulary);
    double nll = 0.0;
    const double loss = reference(hidden, head, targets, 0.25, 0.1, &nll);
    const CrossEntropy y = linear_cross_entropy(hidden, head, targets_of(targets), 0.25, 0.1);
    CHECK(y.loss.data<double>()[0] == Approx(loss).margin(1e-12));
    CHECK(y.nll_sum.data<double>()[0] == Approx(nll).margin(1e-12));
    const CrossEntropy single = linear_cross_entropy(hidden.to(DType::f32), head.to(DType::f32),
                                                     targets_of(targets), 0.25, 0.1);
    CHECK(single.loss.data<float>()[0] == Approx(loss).epsilon(1e-5).margin(1e-6));
  }
}

TEST_CASE("linear_cross_entropy gradients", "[unit][ops]") {
  const Tensor targets = targets_of({2, -1, 0, 4, 2});
  for (const double z_weight : {0.0, 0.3}) {
    const auto f = [&](const auto& x) {
      return linear_cross_entropy(x[0], x[1], targets, 0.2, z_weight).loss;
    };
    CHECK(gradient_error(f, {random({5, 3}, 1), random({7, 3}, 2)}) < 1e-8);
  }
  // Tied weights, and a factor behind the loss.
  CHECK(gradient_error(
            [&](const auto& x) {
              return add(linear_cross_entropy(x[0], x[0], targets, 0.2, 0.1).loss,
                         scale(linear_cross_entropy(x[0], x[1], targets, 0.2, 0.0).loss, -3.0));
            },
            {random({5, 3}, 1), random({6, 3}, 2)}) < 1e-7);
}

TEST_CASE("linear_cross_entropy over several chunks", "[unit][ops]") {
  const auto targets = pseudo_targets(1100, 5);
  const Tensor hidden = make_leaf(random({1100, 2}, 1));
  const Tensor head = make_leaf(random({5, 2}, 2));
  Tape tape;
  Tensor loss;
  {
    Tape::Scope recording(tape);
    loss = linear_cross_entropy(hidden, head, targets_of(targets), 1.0, 0.0).loss;
  }
  tape.backward(loss);
  for (const int i : {0, 3, 9}) {
    Tensor above = head.clone(), below = head.clone();
    above.data<double>()[i] += 1e-5;
    below.data<double>()[i] -= 1e-5;
    const double numeric = (reference(hidden, above, targets, 1.0, 0.0) -
                            reference(hidden, below, targets, 1.0, 0.0)) /
                           2e-5;
    CHECK(head.grad().data<double>()[i] == Approx(numeric).epsilon(1e-6));
  }
  // An ignored token has no gradient; the last one, in the third chunk, has.
  CHECK(hidden.grad().data<double>()[3 * 2] == 0.0);
  CHECK(hidden.grad().data<double>()[1099 * 2] != 0.0);
}

TEST_CASE("linear_cross_entropy in the buffers of gradients", "[unit][ops]") {
  const Tensor hidden = random({9, 5}, 1);
  const Tensor head = make_leaf(random({11, 5}, 2));
  const Tensor targets = targets_of(pseudo_targets(9, 11));
  std::vector<Tensor> gradients;
  // Makes the buffer, fills it again, adds to it; with two uses of the head at a time.
  for (const bool fresh : {true, true, false}) {
    head.slot()->fresh = fresh;
    Tape tape;
    Tensor loss;
    {
      Tape::Scope recording(tape);
      loss = add(linear_cross_entropy(hidden, head, targets, 0.2, 0.1).loss,
                 scale(linear_cross_entropy(hidden, head, targets, 0.7, 0.0).loss, -3.0));
    }
    tape.backward(loss);
    gradients.push_back(head.grad().clone());
  }
  CHECK(gradients[0].to_vector<double>() == gradients[1].to_vector<double>());
  CHECK(relative_error(gradients[2], scale(gradients[0], 2.0)) < 1e-14);
}

TEST_CASE("linear_cross_entropy is stable for large logits", "[unit][ops]") {
  const Tensor hidden = Tensor::from<float>({1000.0f, 0.0f}, {1, 2});
  const Tensor head = Tensor::from<float>({1.0f, 0.0f, -1.0f, 0.0f}, {2, 2});
  CHECK(linear_cross_entropy(hidden, head, targets_of({0}), 1.0, 0.0).loss.data<float>()[0] ==
        0.0f);
  CHECK(linear_cross_entropy(hidden, head, targets_of({1}), 1.0, 0.0).loss.data<float>()[0] ==
        2000.0f);
  const Tensor nan = Tensor::full({1, 2}, std::nan(""), DType::f32);
  CHECK(
      std::isnan(linear_cross_entropy(nan, head, targets_of({1}), 1.0, 0.0).loss.data<float>()[0]));
}

TEST_CASE("linear_cross_entropy of nothing", "[unit][ops]") {
  const auto f = [](const auto& x) {
    return linear_cross_entropy(x[0], x[1], targets_of({}), 1.0, 0.0).loss;
  };
  CHECK(gradient_error(f, {random({0, 3}, 1), random({5, 3}, 2)}) < 1e-8);
  const auto ignored = [](const auto& x) {
    return linear_cross_entropy(x[0], x[1], targets_of({-1, -1}), 1.0, 0.5).loss;
  };
  CHECK(gradient_error(ignored, {random({2, 3}, 1), random({5, 3}, 2)}) < 1e-8);
}

TEST_CASE("linear_cross_entropy in bf16 is near f32", "[unit][ops]") {
  try {
    set_matmul_precision(MatmulPrecision::bf16);
  } catch (const UserError&) {
    return;
  }
  set_matmul_precision(MatmulPrecision::f32);
  const Tensor targets = targets_of(pseudo_targets(70, 33));
  const auto gradients = [&](MatmulPrecision precision) {
    set_matmul_precision(precision);
    const Tensor hidden = make_leaf(random({70, 16}, 1).to(DType::f32));
    const Tensor head = make_leaf(random({33, 16}, 2, 0.3).to(DType::f32));
    Tape tape;
    Tensor loss;
    {
      Tape::Scope recording(tape);
      loss = linear_cross_entropy(hidden, head, targets, 1.0, 1e-3).loss;
    }
    tape.backward(loss);
    set_matmul_precision(MatmulPrecision::f32);
    return std::vector<Tensor>{loss, hidden.grad(), head.grad()};
  };
  const auto exact = gradients(MatmulPrecision::f32);
  const auto rounded = gradients(MatmulPrecision::bf16);
  for (int i = 0; i < 3; ++i) {
    CHECK(relative_error(rounded[i], exact[i]) < 2e-2);
    CHECK(relative_error(rounded[i], exact[i]) > 0.0);
  }
}

TEST_CASE("linear_cross_entropy refuses what does not fit", "[unit][ops]") {
  const Tensor hidden = random({2, 3}, 1);
  const Tensor head = random({5, 3}, 2);
  CHECK_THROWS_AS(linear_cross_entropy(hidden, random({5, 4}, 2), targets_of({0, 1}), 1, 0),
                  ArgumentError);
  CHECK_THROWS_AS(linear_cross_entropy(hidden, head, targets_of({0}), 1, 0), ArgumentError);
  CHECK_THROWS_AS(linear_cross_entropy(hidden, head, Tensor::zeros({2}, DType::i64), 1, 0),
                  ArgumentError);
  CHECK_THROWS_AS(linear_cross_entropy(hidden, head, targets_of({0, -2}), 1, 0), ArgumentError);
  std::string message;
  try {
    linear_cross_entropy(hidden, head, targets_of({0, 5}), 1, 0);
  } catch (const ArgumentError& error) {
    message = error.what();
  }
  CHECK(message ==
        "linear_cross_entropy: target 5 at position 1 is neither -1 nor in a vocabulary of 5");
}
