#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/core/philox.h"
#include "framework/ops/table.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

enum class Spread { wide, narrow, one, skewed };

// Row ids below bound: all over, few different, a single one, or ever rarer ones.
Tensor random_rows(const Shape& shape, std::int64_t bound, Spread spread, std::uint64_t seed) {
  const Random draw(seed, 5);
  const Tensor rows = Tensor::empty(shape, DType::i64);
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const double u = draw.uniform(at);
    const auto most = static_cast<double>(bound - 1);
    const double row = spread == Spread::wide     ? u * most
                       : spread == Spread::narrow ? (draw.below(at, 3)) * (most / 3.0)
                       : spread == Spread::one    ? most
                                                  : most * u * u * u * u * u * u * u * u;
    rows.data<std::int64_t>()[i] = static_cast<std::int64_t>(row);
  }
  return rows;
}

struct Host {
  std::vector<std::int64_t> rows;
  Tensor values;  // f64
};

Host to_host(const ops::MergedRows& merged) {
  const auto count = static_cast<std::int64_t>(merged.count.item());
  return {merged.rows.slice(0, count).to(Device{}).to_vector<std::int64_t>(),
          merged.values.slice(0, count).to(Device{}).to(DType::f64)};
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

}  // namespace

TEST_CASE("rows of a table are read on CUDA as they are", "[gpu][ops]") {
  const Device device = cuda_device();
  for (const std::int64_t width : {1, 3, 4, 12, 16, 80, 300}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{700, 16}, Shape{0, 4}, Shape{5, 3}}) {
      INFO(shape[0] << " x " << shape[1] << " of " << width);
      const Tensor values = random({997, width}, 1).to(DType::f32);
      const Tensor index = random_rows(shape, 997, Spread::wide, 2);
      const Tensor cpu = ops::read_table(values, index, DType::f32);
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Tensor table = make_leaf(values.to(device));
        Tape tape;
        Tensor y;
        poison_memory(true);
        {
          const Tape::Scope recording(tape);
          y = ops::read_table(table, index.to(device), dtype);
        }
        poison_memory(false);
        REQUIRE(y.shape() == cpu.shape());
        REQUIRE(y.dtype() == dtype);
        CHECK(same_bits(y.to(Device{}), cpu.to(dtype)));
        const Tensor seed = random(y.shape(), 3).to(dtype);
        tape.backward({y}, {seed.to(device)});
        const SparseRows& sparse = table.slot()->sparse;
        REQUIRE(sparse.rows.size() == 1);
        CHECK(sparse.rows[0].to(Device{}).to_vector<std::int64_t>() ==
              index.to_vector<std::int64_t>());
        CHECK(sparse.values[0].shape() == Shape{index.numel(), width});
        CHECK(same_bits(sparse.values[0].to(Device{}), seed));
      }
    }
  }
}

TEST_CASE("gradients of equal rows are added on CUDA as on the CPU", "[gpu][ops]") {
  const Device device = cuda_device();
  struct Case {
    std::vector<std::int64_t> parts;
    std::int64_t width, bound;
    Spread spread;
  };
  const std::vector<std::int64_t> many(70, 37);  // more parts than a launch takes
  const std::int64_t beyond = std::int64_t{1} << 40;
  for (const Case& c :
       {Case{{0}, 4, 100, Spread::wide}, Case{{1}, 3, 1, Spread::one},
        Case{{31}, 16, 1000, Spread::narrow}, Case{{32}, 16, 1000, Spread::one},
        Case{{33}, 1, beyond, Spread::one}, Case{{1024}, 4, 100, Spread::one},
        Case{{5003}, 16, 100000, Spread::wide}, Case{{5003}, 80, 100000, Spread::skewed},
        Case{{5003}, 7, 50, Spread::narrow}, Case{{30000}, 4, beyond, Spread::skewed},
        Case{{40007}, 5, 1000, Spread::one}, Case{{70000}, 4, 1000, Spread::narrow},
        Case{{70000}, 16, 1000000, Spread::wide}, Case{{600000}, 4, 3000, Spread::narrow},
        Case{{40000, 30000}, 80, 300000, Spread::skewed},
        Case{{3000, 0, 1, 2000}, 300, 700, Spread::skewed}, Case{many, 8, 90, Spread::wide}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      INFO(c.parts[0] << " of " << c.parts.size() << " parts, width " << c.width << ", spread "
                      << static_cast<int>(c.spread) << " " << name_of(dtype));
      SparseRows cpu, cuda;
      for (std::size_t k = 0; k < c.parts.size(); ++k) {
        const Tensor rows = random_rows({c.parts[k]}, c.bound, c.spread, 10 + k);
        const Tensor values = random({c.parts[k], c.width}, 30 + k).to(dtype);
        cpu.rows.push_back(rows);
        cpu.values.push_back(values.to(DType::f64));
        cuda.rows.push_back(rows.to(device));
        cuda.values.push_back(values.to(device));
      }
      const ops::MergedRows expected = ops::merge_sparse(cpu, c.bound);
      poison_memory(true);
      const Host merged = to_host(ops::merge_sparse(cuda, c.bound));
      ops::merge_in_place(cuda, c.bound);
      poison_memory(false);
      CHECK(merged.rows == expected.rows.to_vector<std::int64_t>());
      REQUIRE(merged.values.shape() == expected.values.shape());
      if (merged.values.numel() > 0) {
        CHECK(relative_error(merged.values, expected.values) < 1e-5);
      }
      // Once more, and in place, with the same bits; a merged gradient stays as it is.
      ops::merge_in_place(cuda, c.bound);
      REQUIRE(cuda.rows.size() == 1);
      const Host again = to_host({cuda.rows[0], cuda.values[0], cuda.count});
      CHECK(again.rows == merged.rows);
      CHECK(same_bits(again.values, merged.values));
      CHECK(ops::merged_count(cuda, device).item() == static_cast<double>(merged.rows.size()));
    }
  }
}

TEST_CASE("fetched rows are spread to tokens on CUDA", "[gpu][ops]") {
  for (const std::int64_t width : {1, 3, 16, 80}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{700, 16}, Shape{5, 3}}) {
      const ops::UniqueRows rows = ops::unique_rows(random_rows(shape, 997, Spread::skewed, 3));
      const Tensor index = rows.index.reshape(shape);
      for (const DType dtype : {DType::f32, DType::bf16}) {
        INFO(shape[0] << " x " << shape[1] << " of " << width << " in " << name_of(dtype));
        const auto take = [&](const std::vector<Tensor>& in) {
          const Device device = in[0].device();
          return std::vector<Tensor>{
              ops::take_rows(in[0], index.to(device), device.is_cuda() ? dtype : in[0].dtype())};
        };
        const Tensor source = random({rows.unique.numel(), width}, 4);
        const CudaErrors errors = cuda_errors(take, {fulcrum::testing::vector(source)}, dtype);
        CHECK(errors.outputs < cuda_tolerance(dtype));
        CHECK(errors.gradients < cuda_tolerance(dtype));
      }
    }
  }
  const Device device = cuda_device();
  const Tensor none = Tensor::zeros({0, 4}, DType::f32, device);
  const Tensor index = Tensor::zeros({0, 3}, DType::i64, device);
  CHECK(ops::take_rows(none, index, DType::bf16).shape() == Shape({0, 12}));
}
