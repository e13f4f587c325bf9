#include "framework/ops/gemm_transposed.h"

#include "framework/core/error.h"

#ifdef __x86_64__
#include <immintrin.h>
#include <omp.h>

#include <algorithm>

#include "framework/core/memory_pool.h"
#endif

namespace fulcrum::ops {

#ifdef __x86_64__

namespace {

#define FULCRUM_AVX512 __attribute__((target("avx512f")))

// A tile of c is 8 rows of 3 vectors: 24 sums in registers, with 11 loads for 24 multiply-adds.
constexpr std::int64_t kVector = 16;
constexpr std::int64_t kRows = 8;
constexpr std::int64_t kVectors = 3;
constexpr std::int64_t kColumns = kVectors * kVector;
// Rows of a and b that are summed in registers before the sums go to c. A panel of b then streams
// from the second cache while 8 columns of a stay in the first.
constexpr std::int64_t kDepth = 512;
// Rows of c whose part of a is copied at once, and columns of c whose part of b is: it stays in the
// second cache while the rows pass.
constexpr std::int64_t kBlockRows = 64;
constexpr std::int64_t kMostColumns = 480;
constexpr std::int64_t kLeastRows = 128;  // of a thread's part
// Panels that are filled row by row together: a row is read once, in whole cache lines, and the
// places written to, which lie a power of two apart, still fit the ways of the first cache.
constexpr std::int64_t kTogether = 4;

std::int64_t ceil_div(std::int64_t x, std::int64_t y) { return (x + y - 1) / y; }

// The first `count` lanes.
__mmask16 lanes(std::int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

// c (+)= panel of a [depth, 8] ᵀ · panel of b [depth, 16 V]: `rows` rows, and of the last vector
// the columns in `mask`.
template <int V>
FULCRUM_AVX512 void tile(std::int64_t depth, const float* a, const float* b, std::int64_t rows,
                         __mmask16 mask, bool add, float* c, std::int64_t ldc) {
  __m512 sum[kRows][V];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[i][v] = _mm512_setzero_ps();
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    __m512 right[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) right[v] = _mm512_loadu_ps(b + v * kVector);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 left = _mm512_set1_ps(a[i]);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[i][v] = _mm512_fmadd_ps(left, right[v], sum[i][v]);
    }
    a += kRows;
    b += V * kVector;
  }
  // Masked stores are slow on some processors.
  const bool whole = mask == lanes(kVector);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      float* out = c + i * ldc + v * kVector;
      if (v < V - 1 || whole) {
        const __m512 before = add ? _mm512_loadu_ps(out) : _mm512_setzero_ps();
        _mm512_storeu_ps(out, _mm512_add_ps(before, sum[i][v]));
      } else {
        const __m512 before = add ? _mm512_maskz_loadu_ps(mask, out) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(out, mask, _mm512_add_ps(before, sum[i][v]));
      }
    }
  }
}

// Panels of b: columns j·48 to (j + 1)·48 of kDepth rows lie together, [depth, 48]; the last has as
// many vectors as it needs, filled up by zeros.
FULCRUM_AVX512 void pack_right(const float* b, std::int64_t ldb, std::int64_t depth,
                               std::int64_t columns, float* panel) {
  const std::int64_t whole = columns / kColumns * kColumns;
  for (std::int64_t first = 0; first < whole; first += kTogether * kColumns) {
    const std::int64_t end = std::min(whole, first + kTogether * kColumns);
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t j = first; j < end; j += kColumns) {
        const float* from = b + k * ldb + j;
        float* to = panel + j * depth + k * kColumns;
#pragma GCC unroll 3
        for (std::int64_t v = 0; v < kColumns; v += kVector)
          _mm512_storeu_ps(to + v, _mm512_loadu_ps(from + v));
      }
    }
  }
  const std::int64_t width = columns - whole;
  const std::int64_t padded = ceil_div(width, kVector) * kVector;
  for (std::int64_t k = 0; k < depth && width > 0; ++k) {
    float* to = panel + whole * depth + k * padded;
    std::copy_n(b + k * ldb + whole, width, to);
    std::fill_n(to + width, padded - width, 0.0f);
  }
}

// Panels of a: [depth, 8] each, filled up by zeros.
FULCRUM_AVX512 void pack_left(const float* a, std::int64_t lda, std::int64_t depth,
                              std::int64_t columns, float* panel) {
  const std::int64_t whole = columns / kRows * kRows;
  for (std::int64_t first = 0; first < whole; first += 2 * kTogether * kRows) {
    const std::int64_t end = std::min(whole, first + 2 * kTogether * kRows);
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t i = first; i < end; i += kRows)
        _mm256_storeu_ps(panel + i * depth + k * kRows, _mm256_loadu_ps(a + k * lda + i));
    }
  }
  const std::int64_t width = columns - whole;
  for (std::int64_t k = 0; k < depth && width > 0; ++k) {
    float* to = panel + whole * depth + k * kRows;
    std::copy_n(a + k * lda + whole, width, to);
    std::fill_n(to + width, kRows - width, 0.0f);
  }
}

// c's rows of one packed block of a, over the depth of one block of rows.
FULCRUM_AVX512 void multiply_block(std::int64_t depth, const float* left, std::int64_t rows,
                                   const float* right, std::int64_t columns, bool add, float* c,
                                   std::int64_t ldc) {
  for (std::int64_t j = 0; j < columns; j += kColumns) {
    const std::int64_t width = std::min(kColumns, columns - j);
    const std::int64_t vectors = ceil_div(width, kVector);
    const __mmask16 mask = lanes(width - (vectors - 1) * kVector);
    const float* panel = right + j * depth;
    for (std::int64_t i = 0; i < rows; i += kRows) {
      const float* strip = left + i * depth;
      const std::int64_t used = std::min(kRows, rows - i);
      float* out = c + i * ldc + j;
      if (vectors == 3) {
        tile<3>(depth, strip, panel, used, mask, add, out, ldc);
      } else if (vectors == 2) {
        tile<2>(depth, strip, panel, used, mask, add, out, ldc);
      } else {
        tile<1>(depth, strip, panel, used, mask, add, out, ldc);
      }
    }
  }
}

// One thread's part of c.
FULCRUM_AVX512 void multiply_range(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                                   std::int64_t lda, const float* b, std::int64_t ldb, bool add,
                                   float* c, std::int64_t ldc, float* left, float* right) {
  for (std::int64_t row = 0; row < k; row += kDepth) {
    const std::int64_t depth = std::min(kDepth, k - row);
    pack_right(b + row * ldb, ldb, depth, n, right);
    for (std::int64_t i = 0; i < m; i += kBlockRows) {
      const std::int64_t rows = std::min(kBlockRows, m - i);
      pack_left(a + row * lda + i, lda, depth, rows, left);
      multiply_block(depth, left, rows, right, n, add || row > 0, c + i * ldc, ldc);
    }
  }
}

// Parts of c that threads take in any order.
struct Cut {
  std::int64_t rows, columns, down, across;
  std::int64_t count() const { return down * across; }
};

// Two parts a thread, so that a thread that is held up leaves work to the others, or one where two
// would be too small to outweigh the copying, which is done for each part.
Cut cut_of(std::int64_t m, std::int64_t n) {
  const std::int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const std::int64_t across = ceil_div(n, kMostColumns);
  const std::int64_t most = std::max<std::int64_t>(1, m / kLeastRows);
  const std::int64_t twice = ceil_div(2 * threads, across);
  const std::int64_t down = threads == 1    ? 1
                            : twice <= most ? twice
                                            : std::min(ceil_div(threads, across), most);
  Cut cut;
  cut.rows = ceil_div(ceil_div(m, down), kRows) * kRows;
  cut.columns = ceil_div(ceil_div(n, across), kColumns) * kColumns;
  cut.down = ceil_div(m, cut.rows);
  cut.across = ceil_div(n, cut.columns);
  return cut;
}

}  // namespace

bool has_gemm_transposed() {
  static const bool has = __builtin_cpu_supports("avx512f") != 0;
  return has;
}

void gemm_transposed(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                     std::int64_t lda, const float* b, std::int64_t ldb, bool add, float* c,
                     std::int64_t ldc) {
  const Cut cut = cut_of(m, n);
#pragma omp parallel if (cut.count() > 1)
  {
    const auto right = allocate(cut.columns * kDepth * sizeof(float));
    const auto left = allocate(kBlockRows * kDepth * sizeof(float));
#pragma omp for schedule(dynamic)
    for (std::int64_t task = 0; task < cut.count(); ++task) {
      const std::int64_t first = task / cut.across * cut.rows;
      const std::int64_t column = task % cut.across * cut.columns;
      multiply_range(std::min(cut.rows, m - first), std::min(cut.columns, n - column), k, a + first,
                     lda, b + column, ldb, add, c + first * ldc + column, ldc,
                     static_cast<float*>(left->data), static_cast<float*>(right->data));
    }
  }
}

#else

bool has_gemm_transposed() { return false; }

void gemm_transposed(std::int64_t, std::int64_t, std::int64_t, const float*, std::int64_t,
                     const float*, std::int64_t, bool, float*, std::int64_t) {
  throw InternalError("gemm_transposed: built for another processor");
}

#endif

}  // namespace fulcrum::ops
