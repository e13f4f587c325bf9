#include "framework/ops/grouped_matmul.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/ops/gemm_bf16.h"
#include "framework/ops/grouped_matmul_cuda.h"

namespace fulcrum::ops {
namespace {

// Products are cut into tiles, which threads take in any order; each tile is one product on one
// thread. The cut does not depend on the number of threads.
constexpr std::int64_t kTileRows = 256;
constexpr std::int64_t kTileColumns = 512;
// bf16 operands begin every group at a multiple of this, padded by zero rows: few distinct sizes
// reach oneDNN, which builds a kernel for each, and the padding adds nothing to sums over rows.
constexpr std::int64_t kAlign = 32;

std::int64_t align(std::int64_t rows) { return (rows + kAlign - 1) / kAlign * kAlign; }

// Where the rows of each group lie.
struct Groups {
  std::vector<std::int64_t> begin;  // in x and y
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> operand;  // first row in operands: as begin, or padded
  std::int64_t all_rows = 0;          // of x
  std::int64_t operand_rows = 0;
  bool padded = false;

  std::int64_t size() const { return static_cast<std::int64_t>(rows.size()); }
  std::int64_t used() const { return rows.empty() ? 0 : begin.back() + rows.back(); }
};

Groups groups_of(const Tensor& offsets, std::int64_t all_rows, bool padded) {
  Groups groups;
  groups.all_rows = all_rows;
  groups.padded = padded;
  const std::int64_t* offset = offsets.data<std::int64_t>();
  for (std::int64_t g = 0; g + 1 < offsets.dim(0); ++g) {
    const std::int64_t rows = offset[g + 1] - offset[g];
    groups.begin.push_back(offset[g]);
    groups.rows.push_back(rows);
    groups.operand.push_back(padded ? groups.operand_rows : offset[g]);
    groups.operand_rows += align(rows);
  }
  if (!padded) groups.operand_rows = all_rows;
  return groups;
}

// x as the products read it.
Tensor operand_of(const Tensor& x, const Groups& groups) {
  if (!groups.padded) return x;
  const std::int64_t width = x.dim(1);
  const Tensor operand = Tensor::empty({groups.operand_rows, width}, DType::bf16);
  const float* from = x.data<float>();
  BFloat16* to = operand.data<BFloat16>();
#pragma omp parallel for schedule(dynamic) if (x.numel() > 16384)
  for (std::int64_t g = 0; g < groups.size(); ++g) {
    const std::int64_t rows = groups.rows[g];
    round_rows(from + groups.begin[g] * width, width, 1.0f,
               operand.slice(groups.operand[g], groups.operand[g] + rows));
    BFloat16* pad = to + (groups.operand[g] + rows) * width;
    std::fill_n(pad, (align(rows) - rows) * width, BFloat16());
  }
  return operand;
}

template <class T>
void product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
             std::int64_t lda, const T* b, std::int64_t ldb, bool add, T* c, std::int64_t ldc) {
  exact_gemm<T>(ta, tb, m, n, k, T(1), a, lda, b, ldb, add ? T(1) : T(0), c, ldc);
}

void product(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const BFloat16* a,
             std::int64_t lda, const BFloat16* b, std::int64_t ldb, bool add, float* c,
             std::int64_t ldc) {
  if (k == 0)
    return exact_gemm<float>(ta, tb, m, n, 0, 1.0f, nullptr, lda, nullptr, ldb, add ? 1.0f : 0.0f,
                             c, ldc);
  gemm_bf16(ta, tb, m, n, k, a, lda, b, ldb, add ? 1.0f : 0.0f, c, ldc);
}

struct Tile {
  std::int64_t group, row, column;
};

// Tiles of groups' results [rows, columns], those with the most work first: threads that take the
// smallest last end at about the same time. depth: what the products of a group sum over.
std::vector<Tile> tiles_of(const std::vector<std::int64_t>& rows,
                           const std::vector<std::int64_t>& depth, std::int64_t tile_rows,
                           std::int64_t columns) {
  std::vector<Tile> tiles;
  for (std::size_t g = 0; g < rows.size(); ++g) {
    for (std::int64_t row = 0; row < rows[g]; row += tile_rows) {
      for (std::int64_t column = 0; column < columns; column += kTileColumns) {
        tiles.push_back({static_cast<std::int64_t>(g), row, column});
      }
    }
  }
  const auto work = [&](const Tile& t) {
    return std::min(tile_rows, rows[t.group] - t.row) * std::min(kTileColumns, columns - t.column) *
           depth[t.group];
  };
  std::stable_sort(tiles.begin(), tiles.end(),
                   [&](const Tile& a, const Tile& b) { return work(a) > work(b); });
  return tiles;
}

// The part of one group's weight that a tile reads: the matrix itself, or its rounding.
template <class T, class E>
struct Slab {
  Tensor rounded;
  const E* data;
  std::int64_t ld;

  Slab(const T* weight, std::int64_t ld_weight, std::int64_t rows, std::int64_t width) {
    if constexpr (std::is_same_v<T, E>) {
      data = weight;
      ld = ld_weight;
    } else {
      rounded = Tensor::empty({rows, width}, DType::bf16);
      round_rows(weight, ld_weight, 1.0f, rounded);
      data = rounded.data<E>();
      ld = width;
    }
  }
};

// y (+)= rows of each group times op(weight[group]); op(weight) is [inner, columns]. E is T or
// BFloat16; weights are rounded tile by tile, so that they cross memory once.
template <class T, class E>
void multiply_rows(const E* a, const T* weight, bool transpose, std::int64_t inner,
                   std::int64_t columns, const Groups& groups, T* y, bool add) {
  const std::int64_t tile_rows = groups.padded ? 2 * kTileRows : kTileRows;
  const std::vector<Tile> tiles = tiles_of(
      groups.rows, std::vector<std::int64_t>(groups.rows.size(), inner), tile_rows, columns);
#pragma omp parallel for schedule(dynamic) if (groups.used() * inner * columns > 65536)
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const auto [g, row, column] = tiles[i];
    const std::int64_t m = std::min(tile_rows, groups.rows[g] - row);
    const std::int64_t n = std::min(kTileColumns, columns - column);
    const E* rows = a + (groups.operand[g] + row) * inner;
    const T* matrix = weight + g * inner * columns;
    const Slab<T, E> w = transpose ? Slab<T, E>(matrix + column * inner, inner, n, inner)
                                   : Slab<T, E>(matrix + column, columns, inner, n);
    T* out = y + (groups.begin[g] + row) * columns + column;
    if (!groups.padded || m == align(m)) {
      product(false, transpose, m, n, inner, rows, inner, w.data, w.ld, add, out, columns);
      continue;
    }
    // The product has more rows than the group has left: it goes beside, and the group's rows are
    // taken over.
    const Tensor beside = Tensor::empty({align(m), n}, dtype_of<T>);
    product(false, transpose, align(m), n, inner, rows, inner, w.data, w.ld, false,
            beside.data<T>(), n);
    for (std::int64_t r = 0; r < m; ++r) {
      const T* from = beside.data<T>() + r * n;
      T* to = out + r * columns;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) to[j] = add ? to[j] + from[j] : from[j];
    }
  }
}

// d[group] (+)= gᵀ · x over the rows of the group: [out, in].
template <class T, class E>
void multiply_groups(const E* g, const E* x, std::int64_t out, std::int64_t in,
                     const Groups& groups, T* d, bool add) {
  const std::vector<Tile> tiles =
      tiles_of(std::vector<std::int64_t>(groups.rows.size(), out), groups.rows, kTileRows, in);
#pragma omp parallel for schedule(dynamic) if (groups.used() * in * out > 65536)
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const auto [group, row, column] = tiles[i];
    const std::int64_t first = groups.operand[group];
    const std::int64_t k = groups.padded ? align(groups.rows[group]) : groups.rows[group];
    product(true, false, std::min(kTileRows, out - row), std::min(kTileColumns, in - column), k,
            g + first * out + row, out, x + first * in + column, in, add,
            d + (group * out + row) * in + column, in);
  }
}

// Calls fn<T, E>: T the dtype of results, E that of operands.
template <class Fn>
void dispatch(DType dtype, const Groups& groups, Fn&& fn) {
  if (groups.padded) return fn.template operator()<float, BFloat16>();
  dispatch_floating("grouped_linear", dtype, [&]<class T>() { fn.template operator()<T, T>(); });
}

void run_rows(const Tensor& operand, const Tensor& weight, bool transpose, const Groups& groups,
              const Tensor& y, bool add) {
  dispatch(y.dtype(), groups, [&]<class T, class E>() {
    const std::int64_t columns = y.dim(1);
    T* out = y.data<T>();
    if (!add) std::fill(out + groups.used() * columns, out + groups.all_rows * columns, T(0));
    multiply_rows<T, E>(operand.data<E>(), weight.data<T>(), transpose, operand.dim(1), columns,
                        groups, out, add);
  });
}

void check_arguments(const Tensor& x, const Tensor& weight, const Tensor& offsets) {
  FULCRUM_REQUIRE(x.rank() == 2 && weight.rank() == 3 && weight.dim(2) == x.dim(1) &&
                      x.dtype() == weight.dtype(),
                  "grouped_linear: needs x [rows, in] and weight [groups, out, in] of one dtype; "
                  "got {} {} and {} {}",
                  x.dtype(), x.shape(), weight.dtype(), weight.shape());
  FULCRUM_REQUIRE(x.device() == weight.device() && x.device() == offsets.device(),
                  "grouped_linear: x, weight and offsets are on {}, {} and {}", x.device(),
                  weight.device(), offsets.device());
  FULCRUM_REQUIRE(offsets.dtype() == DType::i64 && offsets.shape() == Shape({weight.dim(0) + 1}),
                  "grouped_linear: needs offsets i64 [{}]; got {} {}", weight.dim(0) + 1,
                  offsets.dtype(), offsets.shape());
  if (offsets.device().is_cuda()) return;  // what they hold is not known to the host
  const std::int64_t* offset = offsets.data<std::int64_t>();
  FULCRUM_REQUIRE(offset[0] == 0, "grouped_linear: offsets must start at 0; got {}", offset[0]);
  for (std::int64_t g = 0; g < weight.dim(0); ++g) {
    FULCRUM_REQUIRE(offset[g] <= offset[g + 1],
                    "grouped_linear: offsets must not fall; group {} is {} to {}", g, offset[g],
                    offset[g + 1]);
  }
  FULCRUM_REQUIRE(offset[weight.dim(0)] <= x.dim(0),
                  "grouped_linear: offsets end at {}, x has {} rows", offset[weight.dim(0)],
                  x.dim(0));
}

Tensor grouped_linear_on_cuda(const Tensor& x, const Tensor& weight, const Tensor& offsets) {
  Tensor y = Tensor::empty({x.dim(0), weight.dim(1)}, x.dtype(), x.device());
  cuda::grouped_rows(x, weight, offsets, y, false);
  if (Tape* tape = Tape::recording({x, weight})) {
    tape->record("grouped_linear", {x, weight}, {&y},
                 [x = x.detach(), weight = weight.detach(), offsets](Backward& b) {
                   const Tensor g = b.grad(0);
                   if (b.needs(0)) {
                     const auto [out, add] = b.target(0);
                     cuda::grouped_rows_back(g, weight, offsets, out, add);
                   }
                   b.weight_gradient(1, [x, g, weight, offsets](GradSlot& slot) {
                     const auto target =
                         slot.target(weight.shape(), weight.dtype(), weight.device());
                     cuda::grouped_weights(g, x, offsets, target.tensor, target.add);
                   });
                 });
  }
  return y;
}

}  // namespace

Tensor grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& offsets) {
  check_arguments(x, weight, offsets);
  if constexpr (kBuiltWithCuda) {
    if (x.device().is_cuda()) return grouped_linear_on_cuda(x, weight, offsets);
  }
  const bool padded = matmul_precision() == MatmulPrecision::bf16 && x.dtype() == DType::f32;
  const auto groups = std::make_shared<const Groups>(groups_of(offsets, x.dim(0), padded));
  const Tensor rows = operand_of(x.detach(), *groups);
  Tensor y = Tensor::empty({x.dim(0), weight.dim(1)}, x.dtype());
  run_rows(rows, weight, true, *groups, y, false);
  if (Tape* tape = Tape::recording({x, weight})) {
    tape->record(
        "grouped_linear", {x, weight}, {&y}, [rows, weight = weight.detach(), groups](Backward& b) {
          const Tensor g = operand_of(b.grad(0), *groups);
          if (b.needs(0)) {
            const auto [out, add] = b.target(0);
            run_rows(g, weight, false, *groups, out, add);
          }
          b.weight_gradient(1, [rows, g, weight, groups](GradSlot& slot) {
            const auto target = slot.target(weight.shape(), weight.dtype(), weight.device());
            dispatch(weight.dtype(), *groups, [&]<class T, class E>() {
              multiply_groups<T, E>(g.data<E>(), rows.data<E>(), weight.dim(1), weight.dim(2),
                                    *groups, target.tensor.data<T>(), target.add);
            });
          });
        });
  }
  return y;
}

}  // namespace fulcrum::ops
