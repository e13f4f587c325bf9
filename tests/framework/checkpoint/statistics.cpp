#include "framework/checkpoint/statistics.h"

#include <cmath>
#include <limits>

#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"

using namespace fulcrum;
using checkpoint::Statistics;

TEST_CASE("statistics of a tensor", "[unit][checkpoint]") {
  const double inf = std::numeric_limits<double>::infinity();
  Statistics s;
  s.add(Tensor::from<double>({3.0, -4.0, 0.0, std::nan(""), inf, -inf}, {6}));
  CHECK(s.elements() == 6);
  CHECK(s.finite() == 3);
  CHECK(s.nan() == 1);
  CHECK(s.infinite() == 2);
  CHECK(s.zeros() == 1);
  CHECK(s.norm() == 5.0);
  CHECK(s.mean() == Approx(-1.0 / 3));
  CHECK(s.min() == -4.0);
  CHECK(s.max() == 3.0);
}

TEST_CASE("statistics of every dtype", "[unit][checkpoint]") {
  for (const DType dtype :
       {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u16, DType::u8}) {
    Statistics s;
    s.add(Tensor::full({3, 3}, 2.0, dtype));
    s.add(Tensor::full({0, 3}, 2.0, dtype));
    CHECK(s.elements() == 9);
    CHECK(s.norm() == 6.0);
    CHECK(s.max() == 2.0);
  }
}

TEST_CASE("blocks add up to the whole", "[unit][checkpoint]") {
  const Tensor all = testing::normal({1000, 301}, 3);
  Statistics whole;
  whole.add(all);
  Statistics blocks;
  for (std::int64_t first = 0; first < 1000; first += 250)
    blocks.add(all.slice(first, first + 250));
  CHECK(blocks.norm() == Approx(whole.norm()).epsilon(1e-13));
  CHECK(blocks.min() == whole.min());
  CHECK(whole.norm() == Approx(std::sqrt(301000.0)).epsilon(0.01));
  CHECK(Statistics().norm() == 0.0);
}
