#include "parallel/gradient_reducer.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::random;
using fulcrum::testing::world;

namespace {

constexpr int kParameters = 9;
constexpr int kMicroBatches = 2;

// Parameters of odd sizes, two of them experts, one a table.
void make_parameters(ParameterStore& store) {
  for (int k = 0; k < kParameters; ++k) {
    const ParameterKind kind = k % 4 == 3 ? ParameterKind::expert : ParameterKind::matrix;
    store.create(fmt::format("w{}", k), kind, {8, 17 * k + 1}, Initializer::normal(1.0));
  }
  store.create("memory", ParameterKind::table, {64, 4}, Initializer::normal(1.0));
}

// How many times rank r uses parameter k: some by no rank, some by rank 0 only.
int uses(int k, int rank) {
  if (k == 4) return 0;
  if (k == 6) return rank == 0 ? 1 : 0;
  return 1 + (k + rank) % 2;
}

double factor(int k, int rank, int micro_batch) {
  return 1.0 / 3.0 + k + 10.0 * rank + 100.0 * micro_batch;
}

// What a rank contributes to each element of parameter k, added up as its tape does.
float contribution(int k, int rank) {
  float total = 0.0F;
  for (int m = 0; m < kMicroBatches; ++m) {
    for (int u = 0; u < uses(k, rank); ++u) total += static_cast<float>(factor(k, rank, m));
  }
  return total;
}

// One step; ranks use their parameters in different orders, so that gradients complete in different
// orders.
void step(const ParameterStore& store, GradientReducer& reducer, int rank, bool overlap) {
  reducer.begin_step();
  for (int m = 0; m < kMicroBatches; ++m) {
    Tape tape;
    Tensor loss;
    {
      Tape::Scope recording(tape);
      for (int i = 0; i < kParameters; ++i) {
        const int k = rank % 2 == 0 ? i : kParameters - 1 - i;
        for (int u = 0; u < uses(k, rank); ++u) {
          const Tensor& w = store.find(fmt::format("w{}", k)).value;
          const Tensor term = ops::sum(ops::scale(w, factor(k, rank, m)));
          loss = loss.defined() ? ops::add(loss, term) : term;
        }
      }
    }
    if (overlap && m + 1 == kMicroBatches) reducer.arm();
    tape.backward(loss);
  }
  reducer.finish();
}

void check_sums(const ParameterStore& store, const Mesh& mesh) {
  for (int k = 0; k < kParameters; ++k) {
    const Parameter& p = store.find(fmt::format("w{}", k));
    float expected = 0.0F;
    for (const std::int64_t r :
         mesh.gradient_group(p.kind).all_gather(std::int64_t{world().rank()})) {
      expected += contribution(k, static_cast<int>(r));
    }
    REQUIRE(p.value.grad().defined());
    CHECK(p.value.grad().shape() == p.value.shape());
    const std::vector<float> gradient = p.value.grad().to_vector<float>();
    INFO("w" << k << ": " << gradient.front() << " instead of " << expected);
    CHECK(std::all_of(gradient.begin(), gradient.end(), [&](float g) { return g == expected; }));
  }
}

}  // namespace

TEST_CASE("gradients are sums over ranks and micro-batches", "[mpi]") {
  for (const std::int64_t expert : {1, 2}) {
    if (world().size() % expert != 0) continue;
    const Mesh mesh(world(), 1, expert);
    for (const double mib : {1e-6, 0.002, 16.0}) {
      ParameterStore store(3, DType::f32, mesh.shard_policy());
      make_parameters(store);
      GradientReducer reducer(store, mesh, mib);
      CHECK(reducer.buckets() >= (mib > 1 ? 2U : 3U));
      for (const bool overlap : {true, false, true}) {
        step(store, reducer, world().rank(), overlap);
        check_sums(store, mesh);
      }
      CHECK_FALSE(store.find("memory").value.grad().defined());
    }
  }
}

TEST_CASE("sums do not depend on buckets, run or overlap", "[mpi]") {
  const Mesh mesh(world(), 1, 1);
  std::vector<std::vector<float>> results;
  for (const double mib : {0.0005, 0.1, 16.0}) {
    ParameterStore store(3, DType::f32);
    Parameter& w = store.create("w", ParameterKind::matrix, {301, 33}, Initializer::normal(1.0));
    store.create("v", ParameterKind::vector, {5}, Initializer::normal(1.0));
    GradientReducer reducer(store, mesh, mib);
    for (int run = 0; run < 2; ++run) {
      reducer.begin_step();
      w.slot().accumulate(
          random({301, 33}, 50 + static_cast<std::uint64_t>(world().rank())).to(DType::f32));
      reducer.finish();
      results.push_back(w.value.grad().to_vector<float>());
    }
  }
  for (const auto& result : results) {
    CHECK(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(float)) == 0);
  }
  // All ranks hold the same bits.
  std::vector<std::int64_t> bits;
  for (const float x : results[0])
    bits.push_back(static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(x)));
  std::vector<std::int64_t> highest = bits;
  world().all_reduce(std::span(highest), Reduce::max);
  CHECK(highest == bits);
}

TEST_CASE("a gradient that comes after its sum has begun is an error", "[mpi]") {
  const Mesh mesh(world(), 1, 1);
  ParameterStore store(3, DType::f32);
  const Parameter& w = store.create("w", ParameterKind::matrix, {4, 4}, Initializer::normal(1.0));
  GradientReducer reducer(store, mesh, 1.0);
  reducer.begin_step();
  reducer.arm();
  const auto use = [&] {
    Tape tape;
    Tensor loss;
    {
      Tape::Scope recording(tape);
      loss = ops::sum(w.value);
    }
    tape.backward(loss);
  };
  use();
  CHECK_THROWS_AS(use(), InternalError);
  reducer.finish();
}
