#include "framework/ops/rope.h"

#include <algorithm>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/rope_cuda.h"
#include "framework/ops/rope_table.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 16384;  // elements from which threads pay

// One head at one position: out = x turned by ±angle, or added to out. row is the table's row of
// the position.
template <bool kAdd, class T>
inline void turn(const T* x, const T* row, T sign, std::int64_t half, T* out) {
  const T* cosine = row;
  const T* sine = row + half;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const T a = x[i];
    const T b = x[half + i];
    const T s = sign * sine[i];
    const T first = a * cosine[i] - b * s;
    const T second = b * cosine[i] + a * s;
    out[i] = kAdd ? out[i] + first : first;
    out[half + i] = kAdd ? out[half + i] + second : second;
  }
}

template <class T>
void turn_all(const T* x, const T* table, T sign, std::int64_t blocks, std::int64_t seq,
              std::int64_t dim, std::int64_t first, T* out, bool add) {
#pragma omp parallel for schedule(static) if (blocks * seq * dim > kParallel)
  for (std::int64_t r = 0; r < blocks * seq; ++r) {
    const T* row = table + (first + r % seq) * dim;
    if (add) {
      turn<true>(x + r * dim, row, sign, dim / 2, out + r * dim);
    } else {
      turn<false>(x + r * dim, row, sign, dim / 2, out + r * dim);
    }
  }
}

// Sizes of a fused projection.
struct Heads {
  std::int64_t batch, seq, heads, kv_heads, dim, first;
  std::int64_t all() const { return heads + 2 * kv_heads; }
};

// query, key, value [batch, their heads, seq, dim] from qkv.
template <class T>
void split(const T* qkv, const T* table, const Heads& s, T* query, T* key, T* value) {
  const std::int64_t half = s.dim / 2;
#pragma omp parallel for schedule(static) if (s.batch * s.seq * s.all() * s.dim > kParallel)
  for (std::int64_t token = 0; token < s.batch * s.seq; ++token) {
    const std::int64_t b = token / s.seq;
    const std::int64_t t = token % s.seq;
    const T* x = qkv + token * s.all() * s.dim;
    const T* row = table + (s.first + t) * s.dim;
    const auto place = [&](std::int64_t heads, std::int64_t h) {
      return ((b * heads + h) * s.seq + t) * s.dim;
    };
    for (std::int64_t h = 0; h < s.heads; ++h, x += s.dim)
      turn<false>(x, row, T(1), half, query + place(s.heads, h));
    for (std::int64_t h = 0; h < s.kv_heads; ++h, x += s.dim)
      turn<false>(x, row, T(1), half, key + place(s.kv_heads, h));
    for (std::int64_t h = 0; h < s.kv_heads; ++h, x += s.dim)
      std::copy_n(x, s.dim, value + place(s.kv_heads, h));
  }
}

// The reverse: gradients of query, key and value (null: zero) into that of qkv.
template <bool kAdd, class T>
void merge(const T* query, const T* key, const T* value, const T* table, const Heads& s, T* qkv) {
  const std::int64_t half = s.dim / 2;
#pragma omp parallel for schedule(static) if (s.batch * s.seq * s.all() * s.dim > kParallel)
  for (std::int64_t token = 0; token < s.batch * s.seq; ++token) {
    const std::int64_t b = token / s.seq;
    const std::int64_t t = token % s.seq;
    T* out = qkv + token * s.all() * s.dim;
    const T* row = table + (s.first + t) * s.dim;
    const auto from = [&](const T* g, std::int64_t heads, std::int64_t h) {
      return g + ((b * heads + h) * s.seq + t) * s.dim;
    };
    const auto turned = [&](const T* g, std::int64_t heads) {
      for (std::int64_t h = 0; h < heads; ++h, out += s.dim) {
        if (g != nullptr) {
          turn<kAdd>(from(g, heads, h), row, T(-1), half, out);
        } else if (!kAdd) {
          std::fill_n(out, s.dim, T(0));
        }
      }
    };
    turned(query, s.heads);
    turned(key, s.kv_heads);
    for (std::int64_t h = 0; h < s.kv_heads; ++h, out += s.dim) {
      if (value == nullptr) {
        if (!kAdd) std::fill_n(out, s.dim, T(0));
        continue;
      }
      const T* g = from(value, s.kv_heads, h);
      for (std::int64_t i = 0; i < s.dim; ++i) out[i] = kAdd ? out[i] + g[i] : g[i];
    }
  }
}

void check_rotation(const char* op, std::int64_t dim, double theta, std::int64_t first) {
  FULCRUM_REQUIRE(dim > 0 && dim % 2 == 0, "{}: the head dimension must be even; got {}", op, dim);
  FULCRUM_REQUIRE(theta > 0.0, "{}: theta must be positive; got {}", op, theta);
  FULCRUM_REQUIRE(first >= 0, "{}: the first position must not be negative; got {}", op, first);
}

template <class T>
void turn_tensor(const Tensor& x, const Tensor& table, double sign, std::int64_t first,
                 const GradSlot::Target& out) {
  turn_all<T>(x.data<T>(), table.data<T>(), static_cast<T>(sign), x.dim(0) * x.dim(1), x.dim(2),
              x.dim(3), first, out.tensor.data<T>(), out.add);
}

}  // namespace

void check_fused_heads(const char* op, const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                       std::int64_t head_dim, double theta, std::int64_t first) {
  check_rotation(op, head_dim, theta, first);
  FULCRUM_REQUIRE(heads > 0 && kv_heads > 0 && qkv.rank() == 3 &&
                      qkv.dim(2) == (heads + 2 * kv_heads) * head_dim,
                  "{}: needs [batch, seq, ({} + 2 · {}) · {}]; got {}", op, heads, kv_heads,
                  head_dim, qkv.shape());
}

Qkv split_qkv_rope(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                   std::int64_t head_dim, double theta, std::int64_t first) {
  check_fused_heads("split_qkv_rope", qkv, heads, kv_heads, head_dim, theta, first);
  const Heads s{qkv.dim(0), qkv.dim(1), heads, kv_heads, head_dim, first};
  const Tensor table = angle_table(first + s.seq, head_dim / 2, theta, qkv);
  const auto part = [&](std::int64_t count) {
    return Tensor::empty({s.batch, count, s.seq, head_dim}, qkv.dtype(), qkv.device());
  };
  Qkv y{part(heads), part(kv_heads), part(kv_heads)};
  dispatch(
      "split_qkv_rope", qkv,
      [&]<class T>() {
        split<T>(qkv.data<T>(), table.data<T>(), s, y.query.data<T>(), y.key.data<T>(),
                 y.value.data<T>());
      },
      [&] { cuda::split_qkv_rope(qkv, table, first, y.query, y.key, y.value); });
  if (Tape* tape = Tape::recording({qkv})) {
    tape->record(
        "split_qkv_rope", {qkv}, {&y.query, &y.key, &y.value},
        [table, s, dtype = qkv.dtype()](Backward& b) {
          const Tensor query = b.grad(0), key = b.grad(1), value = b.grad(2);
          dispatch(
              "split_qkv_rope", table,
              [&]<class T>() {
                const auto pointer = [](const Tensor& t) {
                  return t.defined() ? t.data<T>() : nullptr;
                };
                const auto target = b.target(0);
                const auto run = target.add ? merge<true, T> : merge<false, T>;
                run(pointer(query), pointer(key), pointer(value), table.data<T>(), s,
                    target.tensor.template data<T>());
              },
              [&] {
                const Tensor qkv =
                    Tensor::empty({s.batch, s.seq, s.all() * s.dim}, dtype, table.device());
                cuda::merge_qkv_rope(query, key, value, table, s.first, s.heads, s.kv_heads, qkv);
                b.accumulate(0, qkv);
              });
        });
  }
  return y;
}

Tensor rope(const Tensor& x, double theta, std::int64_t first) {
  FULCRUM_REQUIRE(x.rank() == 4, "rope: needs [batch, heads, seq, dim]; got {}", x.shape());
  check_rotation("rope", x.dim(3), theta, first);
  const Tensor table = angle_table(first + x.dim(2), x.dim(3) / 2, theta, x);
  Tensor y = Tensor::empty_like(x);
  dispatch(
      "rope", x,
      [&]<class T>() {
        turn_tensor<T>(x, table, 1.0, first, {y, false});
      },
      [&] { cuda::rope(x, table, 1.0, first, y); });
  if (Tape* tape = Tape::recording({x})) {
    tape->record("rope", {x}, {&y}, [table, first](Backward& b) {
      const Tensor g = b.grad(0);
      dispatch(
          "rope", g, [&]<class T>() { turn_tensor<T>(g, table, -1.0, first, b.target(0)); },
          [&] {
            const Tensor dx = Tensor::empty_like(g);
            cuda::rope(g, table, -1.0, first, dx);
            b.accumulate(0, dx);
          });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
