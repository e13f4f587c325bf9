#include "framework/ops/gemm_transposed.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "framework/core/philox.h"
#include "tests/catch.h"

using namespace fulcrum;

namespace {

std::vector<float> random_values(std::int64_t n, std::uint64_t stream) {
  const Random random(7, stream);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i)
    values[i] = static_cast<float>(random.uniform(static_cast<std::uint64_t>(i)) - 0.5);
  return values;
}

struct Problem {
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc;
  std::vector<float> a = random_values(k * lda, 1);
  std::vector<float> b = random_values(k * ldb, 2);
  std::vector<float> before = random_values(m * ldc, 3);

  std::vector<float> run(bool add) const {
    std::vector<float> c = before;
    ops::gemm_transposed(m, n, k, a.data(), lda, b.data(), ldb, add, c.data(), ldc);
    return c;
  }
};

}  // namespace

TEST_CASE("the transposed product agrees with sums in double", "[unit][ops]") {
  if (!ops::has_gemm_transposed()) return;
  for (const bool add : {false, true}) {
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1},
                                  {8, 48, 512},
                                  {3, 17, 5},
                                  {65, 63, 513},
                                  {131, 49, 1100},
                                  {40, 500, 30},
                                  {9, 1023, 70}}) {
      const Problem p{m, n, k, m + 3, n + 5, n + 2};
      INFO(m << " x " << n << " x " << k << " add " << add);
      const std::vector<float> c = p.run(add);
      double worst = 0.0;
      bool outside_kept = true;
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < p.ldc; ++j) {
          const std::int64_t at = i * p.ldc + j;
          if (j >= n) {
            outside_kept = outside_kept && c[at] == p.before[at];
            continue;
          }
          double sum = add ? p.before[at] : 0.0;
          for (std::int64_t r = 0; r < k; ++r)
            sum += static_cast<double>(p.a[r * p.lda + i]) * p.b[r * p.ldb + j];
          worst = std::max(worst, std::abs(sum - c[at]));
        }
      }
      CHECK(worst < 1e-5 * std::sqrt(static_cast<double>(k)) + 1e-6);
      CHECK(outside_kept);
    }
  }
}

TEST_CASE("the transposed product does not depend on the number of threads", "[unit][ops]") {
  if (!ops::has_gemm_transposed()) return;
  const Problem p{700, 530, 600, 700, 530, 530};
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::vector<float> alone = p.run(true);
  for (const int n : {2, 3, 7}) {
    omp_set_num_threads(n);
    CHECK(p.run(true) == alone);
  }
  omp_set_num_threads(threads);
}
