#include <algorithm>
#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/core/cuda_memory.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/grouped_matmul.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/grouped_products.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

using Offsets = std::vector<std::int64_t>;
using cuda::GroupedTiles;

const std::vector<GroupedTiles> kTilings = {GroupedTiles::plain, GroupedTiles::own_128,
                                            GroupedTiles::own_192, GroupedTiles::shared_256};

Tensor tensor_of(const Offsets& offsets) {
  return Tensor::from(offsets, {static_cast<std::int64_t>(offsets.size())});
}

// As many rows in each group as random tokens choose it, some groups never.
Offsets random_routing(std::int64_t groups, std::int64_t rows, std::uint64_t seed) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(groups));
  const Tensor draws = random({rows}, seed);
  for (std::int64_t r = 0; r < rows; ++r) {
    const double u = std::min(0.999, std::abs(draws.data<double>()[r]) / 3.0);  // low ones first
    ++counts[static_cast<std::size_t>(u * static_cast<double>(groups))];
  }
  Offsets offsets = {0};
  for (const std::int64_t count : counts) offsets.push_back(offsets.back() + count);
  return offsets;
}

CudaErrors errors_of(const Offsets& offsets, std::int64_t rows, std::int64_t out, std::int64_t in,
                     DType dtype) {
  const auto groups = static_cast<std::int64_t>(offsets.size()) - 1;
  return cuda_errors(
      [](const auto& x) { return std::vector{grouped_linear(x[0], x[1], x[2])}; },
      {random({rows, in}, 1), weight(random({groups, out, in}, 2)), tensor_of(offsets)}, dtype);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device{});
  const Tensor y = b.to(Device{});
  return std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.bytes())) == 0;
}

// Operands of one product on the device, bf16 but for the weight gradient, and the exact results.
struct Product {
  Tensor x, dy, weight, offsets;
  Tensor exact_y, exact_dx, exact_d;
};

Product product_of(const Offsets& offsets, std::int64_t rows, std::int64_t out, std::int64_t in) {
  const Device device = cuda_device();
  const auto groups = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto rounded = [](const Tensor& x) { return x.to(DType::bf16); };
  Product p;
  const Tensor x = rounded(random({rows, in}, 11));
  const Tensor dy = rounded(random({rows, out}, 12));
  const Tensor weight = rounded(random({groups, out, in}, 13));
  p.x = x.to(device);
  p.dy = dy.to(device);
  p.weight = weight.to(device);
  p.offsets = tensor_of(offsets).to(device);
  const Tensor leaf_x = make_leaf(x.to(DType::f64));
  const Tensor leaf_w = make_leaf(weight.to(DType::f64));
  Tape tape;
  {
    const Tape::Scope recording(tape);
    p.exact_y = grouped_linear(leaf_x, leaf_w, tensor_of(offsets));
  }
  tape.backward(p.exact_y, dy.to(DType::f64));
  p.exact_dx = leaf_x.grad();
  p.exact_d = leaf_w.grad();
  return p;
}

Tensor poisoned(const Shape& shape, DType dtype) {
  const Tensor t = Tensor::empty(shape, dtype, cuda_device());
  cuda_set_bytes(t.raw(), 0xff, static_cast<std::size_t>(t.bytes()), 0);  // NaN in every dtype
  return t;
}

double error(const Tensor& cuda, const Tensor& exact) {
  return relative_error(cuda.to(Device{}).to(DType::f64), exact);
}

void check_tilings() {
  struct Case {
    Offsets offsets;
    std::int64_t beyond, out, in;
  };
  const std::vector<Case> cases = {
      {{0, 100, 100, 356, 357, 700}, 40, 320, 456}, {{0, 0, 129, 129, 640}, 0, 136, 200},
      {random_routing(40, 3000, 5), 17, 192, 128},  {random_routing(70, 2500, 6), 0, 72, 584},
      {random_routing(150, 4000, 8), 30, 648, 328},  // more groups than are ordered together
  };
  for (const Case& c : cases) {
    const std::int64_t rows = c.offsets.back() + c.beyond;
    const Product p = product_of(c.offsets, rows, c.out, c.in);
    for (const GroupedTiles tiles : kTilings) {
      INFO("tiles " << static_cast<int>(tiles) << " out " << c.out << " in " << c.in);
      const Tensor y = poisoned({rows, c.out}, DType::bf16);
      grouped_forward(p.x, p.weight, p.offsets, y, false, tiles);
      CHECK(error(y, p.exact_y) < 4e-3);
      const Tensor dx = poisoned({rows, c.in}, DType::bf16);
      grouped_input(p.dy, p.weight, p.offsets, dx, false, tiles);
      CHECK(error(dx, p.exact_dx) < 4e-3);
      const Tensor d = poisoned(p.weight.shape(), DType::f32);
      grouped_weight(p.dy, p.x, p.offsets, d, false, tiles);
      CHECK(error(d, p.exact_d) < 3e-5);

      // The same bits again; then once more, added.
      const Tensor again = poisoned(p.weight.shape(), DType::f32);
      grouped_weight(p.dy, p.x, p.offsets, again, false, tiles);
      CHECK(same_bits(d, again));
      grouped_weight(p.dy, p.x, p.offsets, again, true, tiles);
      CHECK(error(again, scale(p.exact_d, 2.0)) < 3e-5);
      const Tensor d16 = poisoned(p.weight.shape(), DType::bf16);
      grouped_weight(p.dy, p.x, p.offsets, d16, false, tiles);
      CHECK(error(d16, p.exact_d) < 4e-3);
      grouped_weight(p.dy, p.x, p.offsets, d16, true, tiles);
      CHECK(error(d16, scale(p.exact_d, 2.0)) < 8e-3);
      grouped_input(p.dy, p.weight, p.offsets, dx, true, tiles);
      CHECK(error(dx, scale(p.exact_dx, 2.0)) < 8e-3);
    }
  }
}

void check_rows_of_no_group() {
  const Offsets offsets = {0, 70, 70, 171};
  const Product p = product_of(offsets, 200, 136, 264);
  for (const Tensor& t : {p.x, p.dy}) {
    const Tensor rest = t.slice(171, 200);
    cuda_set_bytes(rest.raw(), 0xff, static_cast<std::size_t>(rest.bytes()), 0);
  }
  for (const GroupedTiles tiles : kTilings) {
    INFO("tiles " << static_cast<int>(tiles));
    const Tensor d = poisoned(p.weight.shape(), DType::f32);
    grouped_weight(p.dy, p.x, p.offsets, d, false, tiles);
    CHECK(error(d, p.exact_d) < 3e-5);
  }
}

// Chunks of 64 contraction elements, as many as the ring of stages holds (4 to 6) or twice that: a
// warpgroup that takes an old filling of a stage for the next one shows here.
void check_deep_tiles() {
  const std::int64_t rows = 40960;
  for (const std::int64_t chunks : {4, 5, 6, 12}) {
    const std::int64_t in = 64 * chunks;
    const std::int64_t out = 256;
    Product p;
    p.x = random({rows, in}, 21).to(DType::bf16).to(cuda_device());
    p.dy = random({rows, out}, 22).to(DType::bf16).to(cuda_device());
    p.weight = random({64, out, in}, 23).to(DType::bf16).to(cuda_device());
    p.offsets = tensor_of(random_routing(64, rows, 24)).to(cuda_device());
    const Tensor y = poisoned({rows, out}, DType::bf16);
    const Tensor dx = poisoned({rows, in}, DType::bf16);
    const Tensor d = poisoned(p.weight.shape(), DType::f32);
    const auto multiply = [&](GroupedTiles tiles) {
      grouped_forward(p.x, p.weight, p.offsets, y, false, tiles);
      grouped_input(p.dy, p.weight, p.offsets, dx, false, tiles);
      grouped_weight(p.dy, p.x, p.offsets, d, false, tiles);
    };
    multiply(GroupedTiles::plain);
    const auto exact = [](const Tensor& t) { return t.to(Device{}).to(DType::f64); };
    const std::vector<Tensor> plain = {exact(y), exact(dx), exact(d)};
    for (const GroupedTiles tiles : kTilings) {
      INFO("in " << in << " tiles " << static_cast<int>(tiles));
      multiply(tiles);
      const std::vector<Tensor> first = {y.clone(), dx.clone(), d.clone()};
      CHECK(error(first[0], plain[0]) < 4e-3);
      CHECK(error(first[1], plain[1]) < 4e-3);
      CHECK(error(first[2], plain[2]) < 3e-5);
      for (int repeat = 0; repeat < 5; ++repeat) {
        for (int i = 0; i < 4; ++i) multiply(tiles);  // back to back, so that caches are under load
        CHECK(same_bits(y, first[0]));
        CHECK(same_bits(dx, first[1]));
        CHECK(same_bits(d, first[2]));
      }
    }
  }
}

}  // namespace

TEST_CASE("grouped_linear on CUDA equals that on the CPU", "[gpu][ops][grouped]") {
  const std::vector<Offsets> cases = {{0, 3, 3, 10},  // groups smaller than a tile, an empty one
                                      {0, 0, 0, 0},   // nothing
                                      {0, 130, 130, 130},              // all rows in one group
                                      {0, 1, 2, 3, 4},                 // one row each
                                      {0, 300},                        // one group
                                      {0, 0, 64, 192, 193, 449, 449},  // full tiles and single rows
                                      {0, 65, 65, 128, 300, 301, 601, 601}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Offsets& offsets : cases) {
      for (const std::int64_t beyond : {0, 77}) {  // rows behind the last group
        for (const auto& [out, in] : {std::pair{7, 5}, {64, 8}, {200, 136}, {72, 264}}) {
          INFO(name_of(dtype) << " out " << out << " in " << in << " groups " << offsets.size() - 1
                              << " rows " << offsets.back() << " + " << beyond);
          const auto errors = errors_of(offsets, offsets.back() + beyond, out, in, dtype);
          CHECK(errors.outputs < cuda_tolerance(dtype));
          CHECK(errors.gradients < cuda_tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("grouped products of bf16 operands give f32 where asked", "[gpu][ops][grouped]") {
  const Product p = product_of({0, 90, 90, 171}, 180, 72, 136);
  const Tensor dx = poisoned({180, 136}, DType::f32);
  grouped_input(p.dy, p.weight, p.offsets, dx, false, GroupedTiles::automatic);
  CHECK(error(dx, p.exact_dx) < 3e-5);
}

TEST_CASE("grouped_linear on CUDA adds to gradients", "[gpu][ops][grouped]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto errors = cuda_errors(
        [](const auto& x) {
          return std::vector{
              add(grouped_linear(x[0], x[1], x[2]), grouped_linear(x[0], x[1], x[3]))};
        },
        {random({400, 200}, 1), weight(random({3, 72, 200}, 2)), tensor_of({0, 100, 101, 400}),
         tensor_of({0, 300, 333, 333})},
        dtype);
    CHECK(errors.outputs < cuda_tolerance(dtype));
    CHECK(errors.gradients < cuda_tolerance(dtype));
  }
}

TEST_CASE("grouped_linear on CUDA with many groups and random routing", "[gpu][ops][grouped]") {
  for (const auto& [groups, rows, out, in] : {std::tuple{64, 6000, 256, 384},
                                              {64, 6000, 384, 128},
                                              {512, 9000, 64, 72},
                                              {8, 5000, 520, 640}}) {
    INFO(groups << " groups, out " << out << ", in " << in);
    const auto errors = errors_of(random_routing(groups, rows, 7), rows, out, in, DType::bf16);
    CHECK(errors.outputs < cuda_tolerance(DType::bf16));
    CHECK(errors.gradients < cuda_tolerance(DType::bf16));
  }
}

TEST_CASE("every tiling of grouped products is right", "[gpu][ops][grouped]") { check_tilings(); }

TEST_CASE("rows of no group do not reach weight gradients", "[gpu][ops][grouped]") {
  check_rows_of_no_group();
}

TEST_CASE("tiles as deep as the ring of stages, launch after launch", "[gpu][ops][grouped][slow]") {
  check_deep_tiles();
}
