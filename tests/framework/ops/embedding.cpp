#include "framework/ops/embedding.h"

#include <string>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;

namespace {
Tensor ids_of(const std::vector<std::int32_t>& ids) {
  return Tensor::from(ids, {static_cast<std::int64_t>(ids.size())});
}
}  // namespace

TEST_CASE("embedding gathers rows", "[unit][ops]") {
  const Tensor w = Tensor::from<float>({0, 1, 10, 11, 20, 21}, {3, 2});
  CHECK(embedding(w, ids_of({2, 0, 2})).to_vector<float>() ==
        std::vector<float>{20, 21, 0, 1, 20, 21});
  CHECK(embedding(w, ids_of({})).shape() == Shape({0, 2}));
}

TEST_CASE("embedding gradients", "[unit][ops]") {
  const auto f = [](const auto& x) { return embedding(x[0], x[1]); };
  CHECK(gradient_error(f, {random({5, 3}, 1), ids_of({4, 0, 4, 4, 1})}) < 1e-8);
  CHECK(gradient_error(f, {random({2, 131}, 1), ids_of({1, 1, 0})}) < 1e-8);
  CHECK(gradient_error(f, {random({5, 3}, 1), ids_of({})}) < 1e-8);
  // Used twice: the second use adds.
  CHECK(gradient_error(
            [](const auto& x) { return add(embedding(x[0], x[1]), embedding(x[0], x[2])); },
            {random({4, 3}, 1), ids_of({1, 2}), ids_of({2, 2})}) < 1e-8);
}

TEST_CASE("embedding overwrites a stale gradient buffer", "[unit][ops]") {
  const Tensor w = make_leaf(random({3, 2}, 1));
  w.slot()->grad = Tensor::full({3, 2}, 99.0, DType::f64);
  w.slot()->fresh = true;
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = embedding(w, ids_of({2}));
  }
  tape.backward(y, Tensor::full({1, 2}, 5.0, DType::f64));
  CHECK(w.grad().to_vector<double>() == std::vector<double>{0, 0, 0, 0, 5, 5});
}

TEST_CASE("embedding names an id outside the vocabulary", "[unit][ops]") {
  for (const std::int32_t bad : {-1, 5}) {
    std::string message;
    try {
      embedding(random({5, 3}, 1), ids_of({0, bad}));
    } catch (const ArgumentError& error) {
      message = error.what();
    }
    CHECK(message ==
          "embedding: id " + std::to_string(bad) + " at position 1 is outside the vocabulary of 5");
  }
  CHECK_THROWS_AS(embedding(random({5, 3}, 1), Tensor::zeros({2}, DType::i64)), ArgumentError);
  CHECK_THROWS_AS(embedding(random({5}, 1), ids_of({0})), ArgumentError);
}
