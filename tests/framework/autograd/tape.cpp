#include "framework/autograd/tape.h"

#include "framework/autograd/recompute.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::random;

TEST_CASE("a gradient shared by two inputs is not added to in place", "[unit][autograd]") {
  // y = (a + b) + 3a: a gets 4, b gets 1. add hands the same gradient tensor to both of its inputs.
  const Tensor a = make_leaf(random({5}, 1));
  const Tensor b = make_leaf(random({5}, 2));
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    const Tensor a2 = ops::scale(a, 1.0);
    const Tensor b2 = ops::scale(b, 1.0);
    y = ops::sum(ops::add(ops::add(a2, b2), ops::scale(a2, 3.0)));
  }
  tape.backward(y);
  CHECK(a.grad().data<double>()[3] == 4.0);
  CHECK(b.grad().data<double>()[3] == 1.0);
}

TEST_CASE("leaf gradients accumulate until they are fresh again", "[unit][autograd]") {
  const Tensor w = make_leaf(random({3}, 1));
  for (const double expected : {2.0, 4.0}) {
    Tape tape;
    Tensor y;
    {
      Tape::Scope recording(tape);
      y = ops::sum(ops::scale(w, 2.0));
    }
    tape.backward(y);
    CHECK(w.grad().data<double>()[0] == expected);
  }
  w.slot()->fresh = true;
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = ops::sum(w);
  }
  tape.backward(y);
  CHECK(w.grad().data<double>()[0] == 1.0);
}

TEST_CASE("on_complete runs once, after the last use", "[unit][autograd]") {
  const Tensor w = make_leaf(random({3}, 1));
  int calls = 0;
  w.slot()->on_complete = [&] {
    ++calls;
    CHECK(w.grad().data<double>()[0] == 3.0);
  };
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = ops::sum(ops::add(ops::scale(w, 2.0), w));
  }
  tape.backward(y);
  CHECK(calls == 1);
}

TEST_CASE("recompute gives the same gradients", "[unit][autograd]") {
  const Tensor x = random({6}, 3);
  const auto segment = [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{ops::add(ops::scale(in[0], 2.0), in[1])};
  };
  const double error = fulcrum::testing::gradient_error(
      [&](const std::vector<Tensor>& in) { return recompute(segment, in)[0]; }, {x, random({6}, 4)});
  CHECK(error < 1e-8);
}

TEST_CASE("reshape keeps the gradient, slice drops it", "[unit][autograd]") {
  const double error = fulcrum::testing::gradient_error(
      [](const std::vector<Tensor>& in) { return ops::scale(in[0].reshape({6}), 2.0).reshape({3, 2}); },
      {random({2, 3}, 5)});
  CHECK(error < 1e-8);
  CHECK_FALSE(make_leaf(random({4, 2}, 1)).slice(1, 3).requires_grad());
}

TEST_CASE("an early gradient uses a fresh buffer and leaves it in time", "[unit][autograd]") {
  const Tensor w = make_leaf(random({3}, 1));
  GradSlot& slot = *w.slot();
  const auto begin = [&] { return slot.begin_early({3}, DType::f64, {}); };
  const auto value = [&] { return w.grad().data<double>()[1]; };

  auto early = begin();
  CHECK_FALSE(early->in_place);  // no buffer yet
  early->value.fill(1.0);
  CHECK(slot.adopt(*early));  // becomes it
  CHECK(value() == 1.0);

  early = begin();
  CHECK_FALSE(early->in_place);  // the buffer is in use
  early->value.fill(2.0);
  CHECK_FALSE(slot.adopt(*early));

  slot.fresh = true;
  early = begin();
  const auto second = begin();
  CHECK(early->in_place);
  CHECK_FALSE(second->in_place);  // taken
  early->value.fill(3.0);
  CHECK(slot.adopt(*early));
  CHECK_FALSE(slot.adopt(*second));
  CHECK(value() == 3.0);

  slot.fresh = true;
  early = begin();
  early->value.fill(4.0);
  slot.accumulate(Tensor::full({3}, 5.0, DType::f64));
  CHECK_FALSE(early->in_place);  // moved out
  CHECK(early->value.data<double>()[1] == 4.0);
  CHECK(value() == 5.0);
  CHECK_FALSE(slot.adopt(*early));

  slot.fresh = true;
  begin();  // forgotten, as when a tape is dropped
  early = begin();
  CHECK(early->in_place);
  early->value.fill(6.0);
  const auto target = slot.target({3}, DType::f64, {});
  CHECK_FALSE(target.add);
  target.tensor.fill(7.0);
  CHECK(early->value.data<double>()[1] == 6.0);
  CHECK(value() == 7.0);
}
