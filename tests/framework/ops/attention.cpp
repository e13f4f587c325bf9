#include "framework/ops/attention.h"

#include <omp.h>

#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using fulcrum::testing::gradient_error;
using fulcrum::testing::random;
using fulcrum::testing::relative_error;

namespace {

struct Case {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;

  Tensor query() const { return random({batch, heads, length, dim}, 1); }
  Tensor key() const { return random({batch, kv_heads, length, dim}, 2); }
  Tensor value() const { return random({batch, kv_heads, length, value_dim}, 3); }
};

struct Reference {
  Tensor output, dq, dk, dv;
};

// Straight from the definition, with the whole score row of every query.
Reference reference(const Case& c, double scale, const Tensor& grad) {
  const Tensor q = c.query(), k = c.key(), v = c.value();
  Reference r{Tensor::zeros({c.batch, c.length, c.heads, c.value_dim}, DType::f64),
              Tensor::zeros_like(q), Tensor::zeros_like(k), Tensor::zeros_like(v)};
  std::vector<double> p(c.length), dp(c.length);
  for (std::int64_t b = 0; b < c.batch; ++b) {
    for (std::int64_t h = 0; h < c.heads; ++h) {
      const std::int64_t kv = b * c.kv_heads + h / (c.heads / c.kv_heads);
      for (std::int64_t t = 0; t < c.length; ++t) {
        const std::int64_t at = ((b * c.heads + h) * c.length + t) * c.dim;
        double sum = 0.0;
        for (std::int64_t u = 0; u <= t; ++u) {
          double s = 0.0;
          for (std::int64_t i = 0; i < c.dim; ++i) {
            s += q.data<double>()[at + i] * k.data<double>()[(kv * c.length + u) * c.dim + i];
          }
          sum += p[u] = std::exp(scale * s);
        }
        const std::int64_t out = ((b * c.length + t) * c.heads + h) * c.value_dim;
        double delta = 0.0;
        for (std::int64_t u = 0; u <= t; ++u) {
          p[u] /= sum;
          dp[u] = 0.0;
          for (std::int64_t i = 0; i < c.value_dim; ++i) {
            const std::int64_t vi = (kv * c.length + u) * c.value_dim + i;
            const double g = grad.data<double>()[out + i];
            r.output.data<double>()[out + i] += p[u] * v.data<double>()[vi];
            r.dv.data<double>()[vi] += p[u] * g;
            dp[u] += g * v.data<double>()[vi];
          }
          delta += p[u] * dp[u];
        }
        for (std::int64_t u = 0; u <= t; ++u) {
          const double ds = scale * p[u] * (dp[u] - delta);
          for (std::int64_t i = 0; i < c.dim; ++i) {
            const std::int64_t ki = (kv * c.length + u) * c.dim + i;
            r.dq.data<double>()[at + i] += ds * k.data<double>()[ki];
            r.dk.data<double>()[ki] += ds * q.data<double>()[at + i];
          }
        }
      }
    }
  }
  return r;
}

Reference attend(const Case& c, double scale, const Tensor& grad, DType dtype) {
  const Tensor q = make_leaf(c.query().to(dtype));
  const Tensor k = make_leaf(c.key().to(dtype));
  const Tensor v = make_leaf(c.value().to(dtype));
  Tape tape;
  Tensor o;
  {
    Tape::Scope recording(tape);
    o = ops::causal_attention(q, k, v, scale);
  }
  tape.backward(o, grad.to(dtype));
  return {o, q.grad(), k.grad(), v.grad()};
}

}  // namespace

TEST_CASE("attention agrees with its definition", "[unit][ops]") {
  // One token, ragged tiles, whole tiles, grouped heads, one key head, values of another width.
  const Case cases[] = {{1, 1, 1, 1, 1, 1},    {2, 2, 1, 63, 8, 8},    {1, 3, 3, 64, 16, 16},
                        {2, 4, 2, 65, 20, 33}, {1, 6, 2, 129, 64, 64}, {1, 2, 2, 200, 40, 24}};
  for (const Case& c : cases) {
    INFO("heads " << c.heads << " / " << c.kv_heads << ", length " << c.length << ", dim "
                  << c.dim);
    const double scale = 1.0 / std::sqrt(static_cast<double>(c.dim));
    const Tensor grad = random({c.batch, c.length, c.heads, c.value_dim}, 4);
    const Reference expected = reference(c, scale, grad);
    for (const DType dtype : {DType::f64, DType::f32}) {
      const double bound = dtype == DType::f64 ? 1e-12 : 2e-6;
      const Reference got = attend(c, scale, grad, dtype);
      CHECK(relative_error(got.output, expected.output) < bound);
      CHECK(relative_error(got.dv, expected.dv) < bound);
      if (c.length == 1) continue;  // one key: the probability is one and does not move
      CHECK(relative_error(got.dq, expected.dq) < bound);
      CHECK(relative_error(got.dk, expected.dk) < bound);
    }
  }
}

TEST_CASE("attention gradients", "[unit][ops]") {
  const auto f = [](const auto& x) { return ops::causal_attention(x[0], x[1], x[2], 0.7); };
  CHECK(gradient_error(
            f, {random({2, 4, 5, 3}, 1), random({2, 2, 5, 3}, 2), random({2, 2, 5, 2}, 3)}) < 1e-7);
  // Across a tile's edge.
  CHECK(gradient_error(f, {random({1, 2, 67, 1}, 1), random({1, 1, 67, 1}, 2),
                           random({1, 1, 67, 1}, 3)}) < 1e-7);
}

TEST_CASE("attention adds the gradients of a tensor in several roles", "[unit][ops]") {
  const Tensor x = random({1, 2, 130, 4}, 1);
  const Tensor grad = random({1, 130, 2, 4}, 4);
  const auto gradients = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
    Tape tape;
    Tensor o;
    {
      Tape::Scope recording(tape);
      o = ops::causal_attention(q, k, v, 0.5);
    }
    tape.backward(o, grad);
  };
  const Tensor q = make_leaf(x), k = make_leaf(x), v = make_leaf(x), all = make_leaf(x);
  gradients(q, k, v);
  gradients(all, all, all);
  CHECK(relative_error(all.grad(), ops::add(ops::add(q.grad(), k.grad()), v.grad())) < 1e-13);
}

TEST_CASE("attention gives gradients only to inputs that want them", "[unit][ops]") {
  const Case c{1, 2, 1, 70, 4, 4};
  const Tensor grad = random({1, 70, 2, 4}, 4);
  const Reference all = attend(c, 0.5, grad, DType::f64);
  const Tensor k = make_leaf(c.key());
  Tape tape;
  Tensor o;
  {
    Tape::Scope recording(tape);
    o = ops::causal_attention(c.query(), k, c.value(), 0.5);
  }
  tape.backward(o, grad);
  CHECK(relative_error(k.grad(), all.dk) == 0.0);
}

TEST_CASE("attention is stable for large scores", "[unit][ops]") {
  const Case c{1, 1, 1, 130, 8, 3};
  const Tensor o = ops::causal_attention(c.query().to(DType::f32), c.key().to(DType::f32),
                                         Tensor::full({1, 1, 130, 3}, 2.0, DType::f32), 1e3);
  for (const float x : o.to_vector<float>()) CHECK(x == Approx(2.0));
}

TEST_CASE("attention ignores the future", "[unit][ops]") {
  const Case c{1, 2, 1, 100, 8, 8};
  const Tensor q = c.query(), k = c.key(), v = c.value();
  const Tensor before = ops::causal_attention(q, k, v, 0.3);
  for (std::int64_t i = 70 * 8; i < 100 * 8; ++i) {
    k.data<double>()[i] += 1.0;
    v.data<double>()[i] -= 1.0;
  }
  const Tensor after = ops::causal_attention(q, k, v, 0.3);
  const std::int64_t unchanged = 70 * 2 * 8;
  CHECK(std::equal(before.data<double>(), before.data<double>() + unchanged, after.data<double>()));
  CHECK(relative_error(after, before) > 1e-3);
}

TEST_CASE("attention gives the same bits for any number of threads", "[unit][ops]") {
  const Case c{3, 4, 2, 130, 16, 16};
  const Tensor grad = random({3, 130, 4, 16}, 4);
  const int threads = omp_get_max_threads();
  const auto run = [&](int count) {
    omp_set_num_threads(count);
    const Reference r = attend(c, 0.25, grad, DType::f32);
    std::vector<float> bits;
    for (const Tensor& t : {r.output, r.dq, r.dk, r.dv}) {
      const auto part = t.to_vector<float>();
      bits.insert(bits.end(), part.begin(), part.end());
    }
    return bits;
  };
  CHECK(run(1) == run(3));
  omp_set_num_threads(threads);
}

TEST_CASE("attention without sequences or positions", "[unit][ops]") {
  for (const Shape& shape : {Shape{0, 2, 5, 4}, Shape{2, 2, 0, 4}}) {
    const Tensor x = make_leaf(Tensor::empty(shape, DType::f32));
    Tape tape;
    Tensor o;
    {
      Tape::Scope recording(tape);
      o = ops::causal_attention(x, x, x, 1.0);
    }
    CHECK(o.shape() == Shape{shape[0], shape[2], 2, 4});
    tape.backward(o, Tensor::empty(o.shape(), DType::f32));
    CHECK(x.grad().numel() == 0);
  }
}

TEST_CASE("attention refuses wrong arguments", "[unit][ops]") {
  const auto refuse = [](const Shape& q, const Shape& k, const Shape& v) {
    CHECK_THROWS_AS(ops::causal_attention(random(q, 1), random(k, 2), random(v, 3), 1.0),
                    ArgumentError);
  };
  refuse({4, 5, 3}, {4, 5, 3}, {4, 5, 3});
  refuse({1, 3, 5, 4}, {1, 2, 5, 4}, {1, 2, 5, 4});
  refuse({1, 4, 5, 4}, {1, 2, 6, 4}, {1, 2, 6, 4});
  refuse({1, 4, 5, 4}, {1, 2, 5, 3}, {1, 2, 5, 3});
  refuse({1, 4, 5, 4}, {1, 2, 5, 4}, {1, 4, 5, 4});
  refuse({2, 4, 5, 4}, {1, 2, 5, 4}, {1, 2, 5, 4});
  refuse({1, 4, 5, 0}, {1, 2, 5, 0}, {1, 2, 5, 4});
  const Tensor x = random({1, 2, 5, 4}, 1);
  CHECK_THROWS_AS(ops::causal_attention(x, x, x.to(DType::f32), 1.0), ArgumentError);
  const Tensor half = x.to(DType::bf16);
  CHECK_THROWS_AS(ops::causal_attention(half, half, half, 1.0), ArgumentError);
}
