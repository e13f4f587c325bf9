#include "framework/ops/table.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/segments.h"
#include "framework/ops/table_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 32768;  // elements from which threads pay
constexpr std::int64_t kAhead = 8;         // rows fetched ahead of a random read

void check_index(const char* op, const Tensor& index, int rank) {
  FULCRUM_REQUIRE(index.rank() == rank && index.dtype() == DType::i64,
                  "{}: row ids must be i64 of rank {}; got {} {}", op, rank, index.dtype(),
                  index.shape());
}

void copy_rows(const char* source, const std::int64_t* row, std::int64_t first_row, std::int64_t n,
               std::int64_t bytes, char* out) {
#pragma omp parallel for schedule(static) if (n * bytes > 4 * kParallel)
  for (std::int64_t i = 0; i < n; ++i) {
    if (i + kAhead < n) __builtin_prefetch(source + (row[i + kAhead] - first_row) * bytes);
    std::memcpy(out + i * bytes, source + (row[i] - first_row) * bytes,
                static_cast<std::size_t>(bytes));
  }
}

// out[target(s)] (+)= Σ over the positions of segment s of value_at(position), one segment at a
// time.
template <class T, class ValueAt, class Target>
void sum_segments(const Segments& segments, std::int64_t width, ValueAt value_at, Target target,
                  bool add, T* out) {
  const std::int64_t* offsets = segments.offsets.data<std::int64_t>();
  const std::int64_t* positions = segments.positions.data<std::int64_t>();
  const std::int64_t count = segments.count();
#pragma omp parallel for schedule(dynamic, 64) if (segments.positions.numel() * width > kParallel)
  for (std::int64_t s = 0; s < count; ++s) {
    T* sum = out + target(s) * width;
    std::int64_t p = offsets[s];
    if (!add) std::copy_n(value_at(positions[p++]), width, sum);
    for (; p < offsets[s + 1]; ++p) {
      const T* value = value_at(positions[p]);
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) sum[c] += value[c];
    }
  }
}

template <class T>
void take_rows_backward(const Tensor& gradient, const Tensor& index, const Tensor& source,
                        bool add) {
  const std::int64_t width = source.dim(1);
  const Segments segments = group_by_key(index.data<std::int64_t>(), index.numel());
  if (!add && segments.count() < source.dim(0)) source.zero();
  const T* g = gradient.data<T>();
  const std::int64_t* keys = segments.keys.data<std::int64_t>();
  sum_segments(
      segments, width, [=](std::int64_t position) { return g + position * width; },
      [=](std::int64_t s) { return keys[s]; }, add, source.data<T>());
}

bool strictly_ascending(const std::int64_t* x, std::int64_t n) {
  bool ascending = true;
#pragma omp simd reduction(&& : ascending)
  for (std::int64_t i = 1; i < n; ++i) ascending = ascending && x[i - 1] < x[i];
  return ascending;
}

void check_sparse(const SparseRows& gradient) {
  FULCRUM_REQUIRE(gradient.rows.size() == gradient.values.size(),
                  "merge_sparse: {} row parts and {} value parts", gradient.rows.size(),
                  gradient.values.size());
  for (std::size_t k = 0; k < gradient.rows.size(); ++k) {
    const Tensor& rows = gradient.rows[k];
    const Tensor& values = gradient.values[k];
    check_index("merge_sparse", rows, 1);
    FULCRUM_REQUIRE(
        values.rank() == 2 && values.dim(0) == rows.dim(0) &&
            values.dim(1) == gradient.values[0].dim(1) &&
            values.dtype() == gradient.values[0].dtype(),
        "merge_sparse: values of {} rows must be [{}, width] like the first part; got {} {}",
        rows.dim(0), rows.dim(0), values.dtype(), values.shape());
  }
}

// y = rows of source, one after another.
void read_rows(const char* op, const Tensor& source, const Tensor& index, const Tensor& y) {
  const auto on_cpu = [&] {
    FULCRUM_REQUIRE(y.dtype() == source.dtype(), "{}: on the CPU rows stay {}; asked for {}", op,
                    source.dtype(), y.dtype());
    const std::int64_t n = index.numel();
    const std::int64_t* row = index.data<std::int64_t>();
    const KeyRange range = range_of(row, n);
    FULCRUM_REQUIRE(n == 0 || (range.least >= 0 && range.most < source.dim(0)),
                    "{}: rows must lie in [0, {}); got {} to {}", op, source.dim(0), range.least,
                    range.most);
    copy_rows(static_cast<const char*>(source.raw()), row, 0, n,
              source.dim(1) * size_of(source.dtype()), static_cast<char*>(y.raw()));
  };
  dispatch(
      op, source, [&]<class T>() { on_cpu(); }, [&] { cuda::read_table(source, index, y); });
}

// All rows are used, so that the merged ones are those of the source.
Tensor take_rows_backward_on_cuda(const Tensor& gradient, const Tensor& index,
                                  const Shape& source) {
  const std::int64_t n = index.numel();
  const SparseRows parts{{index.reshape({n})}, {gradient.reshape({n, source[1]})}, {}};
  return cuda::merge_sparse(parts, source[0]).values.slice(0, source[0]);
}

}  // namespace

UniqueRows unique_rows(const Tensor& rows) {
  FULCRUM_REQUIRE(rows.dtype() == DType::i64, "unique_rows: rows must be i64; got {}",
                  rows.dtype());
  const Segments segments = group_by_key(rows.data<std::int64_t>(), rows.numel());
  UniqueRows result{segments.keys, Tensor::empty({rows.numel()}, DType::i64)};
  const std::int64_t* offsets = segments.offsets.data<std::int64_t>();
  const std::int64_t* positions = segments.positions.data<std::int64_t>();
  std::int64_t* index = result.index.data<std::int64_t>();
  const std::int64_t count = segments.count();
#pragma omp parallel for schedule(static) if (rows.numel() > kParallel)
  for (std::int64_t s = 0; s < count; ++s) {
    for (std::int64_t p = offsets[s]; p < offsets[s + 1]; ++p) index[positions[p]] = s;
  }
  return result;
}

Tensor gather_table(const Tensor& table, const Tensor& unique, std::int64_t first_row) {
  FULCRUM_REQUIRE(table.rank() == 2, "gather_table: the table must be [rows, width]; got {}",
                  table.shape());
  check_index("gather_table", unique, 1);
  const std::int64_t n = unique.numel();
  const std::int64_t* row = unique.data<std::int64_t>();
  const KeyRange range = range_of(row, n);
  FULCRUM_REQUIRE(n == 0 || (range.least >= first_row && range.most < first_row + table.dim(0)),
                  "gather_table: rows must lie in [{}, {}); got {} to {}", first_row,
                  first_row + table.dim(0), range.least, range.most);
  FULCRUM_REQUIRE(table.device().is_cpu(), "gather_table: host access to a tensor on {}",
                  table.device());
  Tensor y = Tensor::empty({n, table.dim(1)}, table.dtype());
  copy_rows(static_cast<const char*>(table.raw()), row, first_row, n,
            table.dim(1) * size_of(table.dtype()), static_cast<char*>(y.raw()));
  if (Tape* tape = Tape::recording({table})) {
    FULCRUM_REQUIRE(table.slot()->leaf,
                    "gather_table: the table must be a leaf, for its gradient is sparse");
    tape->record("gather_table", {table}, {&y}, [unique, first_row](Backward& b) {
      Tensor rows = unique.detach();
      if (first_row != 0) {
        rows = unique.clone();
        std::int64_t* row = rows.data<std::int64_t>();
        for (std::int64_t i = 0; i < rows.numel(); ++i) row[i] -= first_row;
      }
      SparseRows& sparse = b.slot(0).sparse;
      sparse.rows.push_back(rows);
      sparse.values.push_back(b.grad(0));
    });
  }
  return y;
}

Tensor take_rows(const Tensor& source, const Tensor& index, DType dtype) {
  FULCRUM_REQUIRE(source.rank() == 2, "take_rows: the source must be [rows, width]; got {}",
                  source.shape());
  check_index("take_rows", index, 2);
  Tensor y = Tensor::empty({index.dim(0), index.dim(1) * source.dim(1)}, dtype, source.device());
  read_rows("take_rows", source, index, y);
  if (Tape* tape = Tape::recording({source})) {
    tape->record("take_rows", {source}, {&y}, [index, shape = source.shape()](Backward& b) {
      const Tensor gradient = b.grad(0);
      if constexpr (kBuiltWithCuda) {
        if (gradient.device().is_cuda()) {
          return b.accumulate(0, take_rows_backward_on_cuda(gradient, index, shape));
        }
      }
      const GradSlot::Target target = b.target(0);
      dispatch_floating("take_rows", target.tensor.dtype(), [&]<class T>() {
        take_rows_backward<T>(gradient, index, target.tensor, target.add);
      });
    });
  }
  return y;
}

Tensor read_table(const Tensor& table, const Tensor& index, DType dtype) {
  FULCRUM_REQUIRE(table.rank() == 2, "read_table: the table must be [rows, width]; got {}",
                  table.shape());
  check_index("read_table", index, 2);
  const std::int64_t n = index.numel();
  const std::int64_t width = table.dim(1);
  Tensor y = Tensor::empty({index.dim(0), index.dim(1) * width}, dtype, table.device());
  read_rows("read_table", table, index, y);
  if (Tape* tape = Tape::recording({table})) {
    FULCRUM_REQUIRE(table.slot()->leaf,
                    "read_table: the table must be a leaf, for its gradient is sparse");
    tape->record("read_table", {table}, {&y}, [index, n, width](Backward& b) {
      SparseRows& sparse = b.slot(0).sparse;
      sparse.rows.push_back(index.detach().reshape({n}));
      sparse.values.push_back(b.grad(0).reshape({n, width}));
    });
  }
  return y;
}

MergedRows merge_sparse(const SparseRows& gradient, std::int64_t bound) {
  check_sparse(gradient);
  const std::size_t parts = gradient.rows.size();
  if (parts == 0) return {};
  if constexpr (kBuiltWithCuda) {
    if (gradient.rows[0].device().is_cuda()) {
      if (!gradient.count.defined()) return cuda::merge_sparse(gradient, bound);
      FULCRUM_CHECK(parts == 1, "merge_sparse: {} parts beside a merged one", parts - 1);
      return {gradient.rows[0], gradient.values[0], gradient.count};
    }
  }
  if (parts == 1 &&
      strictly_ascending(gradient.rows[0].data<std::int64_t>(), gradient.rows[0].numel())) {
    return {gradient.rows[0], gradient.values[0], {}};
  }
  std::vector<std::int64_t> first(1, 0);  // of each part among all rows
  for (const Tensor& rows : gradient.rows) first.push_back(first.back() + rows.numel());
  const Tensor all = Tensor::empty({first.back()}, DType::i64);
  for (std::size_t k = 0; k < parts; ++k) {
    all.slice(first[k], first[k + 1]).copy_from(gradient.rows[k]);
  }
  const Segments segments = group_by_key(all.data<std::int64_t>(), all.numel());
  const std::int64_t width = gradient.values[0].dim(1);
  MergedRows merged{
      segments.keys, Tensor::empty({segments.count(), width}, gradient.values[0].dtype()), {}};
  dispatch_floating("merge_sparse", merged.values.dtype(), [&]<class T>() {
    std::vector<const T*>
        base;  // so that position p of part k has its values at base[k] + p · width
    for (std::size_t k = 0; k < parts; ++k)
      base.push_back(gradient.values[k].data<T>() - first[k] * width);
    const auto value_at = [&](std::int64_t position) {
      const auto part =
          std::upper_bound(first.begin() + 1, first.end() - 1, position) - first.begin() - 1;
      return base[static_cast<std::size_t>(part)] + position * width;
    };
    sum_segments(
        segments, width, value_at, [](std::int64_t s) { return s; }, false,
        merged.values.data<T>());
  });
  return merged;
}

void merge_in_place(SparseRows& gradient, std::int64_t bound) {
  const MergedRows merged = merge_sparse(gradient, bound);
  gradient.clear();
  if (!merged.rows.defined()) return;
  gradient.rows.push_back(merged.rows);
  gradient.values.push_back(merged.values);
  gradient.count = merged.count;
}

Tensor merged_count(const SparseRows& gradient, Device device) {
  if (gradient.count.defined()) return gradient.count;
  const std::int64_t rows = gradient.rows.empty() ? 0 : gradient.rows[0].numel();
  return Tensor::full({1}, static_cast<double>(rows), DType::i64, device);
}

}  // namespace fulcrum::ops
