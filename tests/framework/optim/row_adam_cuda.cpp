#include <algorithm>
#include <cstring>

#include "framework/core/philox.h"
#include "framework/optim/clipping.h"
#include "framework/optim/row_adam.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

// Few rows, some of them often.
Tensor random_rows(std::int64_t n, std::int64_t bound, std::uint64_t seed) {
  const Random draw(seed, 9);
  const Tensor rows = Tensor::empty({n}, DType::i64);
  for (std::int64_t i = 0; i < n; ++i) {
    const double u = draw.uniform(static_cast<std::uint64_t>(i));
    rows.data<std::int64_t>()[i] = static_cast<std::int64_t>(u * u * static_cast<double>(bound));
  }
  return rows;
}

// The first (0) or second (1) of moments [rows, 2, width], in f64.
Tensor moment(const Tensor& moments, std::int64_t which) {
  const Tensor all = moments.to(Device{}).to(DType::f64);
  const std::int64_t width = all.dim(2);
  const Tensor one = Tensor::empty({all.dim(0), width}, DType::f64);
  for (std::int64_t row = 0; row < all.dim(0); ++row) {
    std::copy_n(all.data<double>() + (2 * row + which) * width, width,
                one.data<double>() + row * width);
  }
  return one;
}

struct Twin {
  ParameterStore store;
  Parameter& table;
  RowAdam optimizer;

  Twin(std::int64_t rows, std::int64_t width, const ParameterStore::Placement& placement,
       const RowAdamOptions& options)
      : store(7, placement),
        table(store.create("table", ParameterKind::table, {rows, width}, Initializer::normal(0.1))),
        optimizer({&table}, options) {}

  void add(const Tensor& rows, const Tensor& values) const {
    SparseRows& sparse = table.slot().sparse;
    sparse.rows.push_back(rows.to(store.device()));
    sparse.values.push_back(store.device().is_cpu() ? values.to(DType::f64)
                                                    : values.to(store.device()));
  }
};

}  // namespace

TEST_CASE("RowAdam on CUDA equals that on the CPU", "[gpu][optim]") {
  const Device device = cuda_device();
  struct Size {
    std::int64_t width, rows, bound, draws;  // gradients are for rows below the bound
  };
  // several rows a warp, rows of part of a block, and rows wider than a block; then so many that a
  // block takes some after others
  for (const auto& [width, rows_of_table, bound, draws] :
       {Size{1, 211, 100, 77}, Size{3, 211, 100, 77}, Size{16, 211, 100, 77},
        Size{80, 211, 100, 77}, Size{1030, 211, 100, 77}, Size{1100, 211, 100, 77},
        Size{16, 60000, 50000, 40000}, Size{80, 12000, 10000, 8000}, Size{1100, 1500, 1200, 900}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {  // of the gradient
      const RowAdamOptions options{5.0, 0.9, 0.95, 1e-8, 0.1};
      Twin cpu(rows_of_table, width, {DType::f64, Device{}}, options);
      Twin cuda(rows_of_table, width, {DType::f32, device}, options);
      const Tensor before = cuda.table.value.to(Device{});
      for (std::uint64_t step = 1; step <= 4; ++step) {
        INFO(rows_of_table << " x " << width << " " << name_of(dtype) << " step " << step);
        cpu.store.zero_gradients();
        cuda.store.zero_gradients();
        // Two micro-batches, an empty one, or none at all.
        const std::int64_t n = step == 3 ? 0 : draws;
        for (std::uint64_t k = 0; k < (step == 2 ? 0u : 2u); ++k) {
          const Tensor rows = random_rows(n, bound, 10 * step + k);
          const Tensor values = random({n, width}, 10 * step + k).to(dtype);
          cpu.add(rows, values);
          cuda.add(rows, values);
        }
        cpu.optimizer.step(0.01, 0.5);
        cuda.optimizer.step(0.01, 0.5);
        const auto expected = cpu.optimizer.state();
        const auto state = cuda.optimizer.state();
        CHECK(relative_error(cuda.table.value.to(Device{}), cpu.table.value) < 1e-5);
        for (const std::int64_t which : {0, 1}) {
          CHECK(relative_error(moment(state[0].value, which), moment(expected[0].value, which)) <
                1e-5);
        }
        CHECK(state[1].value.to(Device{}).to_vector<std::int32_t>() ==
              expected[1].value.to_vector<std::int32_t>());
      }
      // Rows from the bound on were never touched.
      const Tensor after = cuda.table.value.to(Device{}).slice(bound, rows_of_table);
      CHECK(std::memcmp(after.raw(), before.slice(bound, rows_of_table).raw(),
                        static_cast<std::size_t>(after.bytes())) == 0);
    }
  }
}

TEST_CASE("the square sum on CUDA counts the rows that a merged gradient has", "[gpu][optim]") {
  const Device device = cuda_device();
  Twin cpu(300, 16, {DType::f64, Device{}}, {});
  Twin cuda(300, 16, {DType::f32, device}, {});
  const Tensor rows = random_rows(3000, 200, 3);
  const Tensor values = random({3000, 16}, 4).to(DType::bf16);
  cpu.add(rows, values);
  cuda.add(rows, values);
  poison_memory(true);
  const double sum = gradient_square_sum({&cuda.table}, device).item();
  poison_memory(false);
  CHECK(sum == Approx(gradient_square_sum({&cpu.table}, Device{}).item()).epsilon(1e-6));
  // The optimizer goes on from what was merged.
  cpu.optimizer.step(0.01);
  cuda.optimizer.step(0.01);
  CHECK(relative_error(cuda.table.value.to(Device{}), cpu.table.value) < 1e-5);
}
