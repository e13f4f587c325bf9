#include "tests/parallel/sharding.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/autograd/grad_slot.h"
#include "framework/core/philox.h"
#include "parallel/gradient_reducer.h"
#include "parallel/optimizer_sharding.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

namespace fulcrum::testing {
namespace {

using namespace parallel;

// Rows that divide by 2 and 4, that do not, and fewer than ranks.
void make_parameters(ParameterStore& store) {
  const Initializer normal = Initializer::normal(1.0);
  store.create("embedding", ParameterKind::embedding, {21, 16}, normal);
  store.create("norm", ParameterKind::vector, {16}, Initializer::ones());
  store.create("matrix", ParameterKind::matrix, {24, 33}, normal);
  store.create("experts", ParameterKind::expert, {8, 6, 5}, normal);
  store.create("router", ParameterKind::router, {8, 16}, normal);
  store.create("small", ParameterKind::matrix, {1, 7}, normal);
  store.create("head", ParameterKind::head, {40, 16}, normal);
}

Tensor gradient_of(const Parameter& p, int rank) {
  const Tensor whole =
      random(p.global_shape, stream_of(p.name) % 1000 + 10000 * static_cast<std::uint64_t>(rank));
  return whole.to(DType::f32).slice(p.shard.first, p.shard.first + p.shard.count);
}

// master -= 0.5 · gradient, on the host; then the rows of value.
void update(const Parameter& p, const Tensor& gradient) {
  const Tensor master = p.master.to(Device{}).clone();
  float* w = master.data<float>();
  const float* g = gradient.data<float>();
  for (std::int64_t i = 0; i < master.numel(); ++i) w[i] -= 0.5F * g[i];
  p.master.copy_from(master.to(p.master.device()));
  if (!p.rounded()) return;
  p.value.slice(p.master_rows.first, p.master_rows.first + p.master_rows.count)
      .copy_from(p.master.to(DType::bf16));
}

std::vector<float> to_floats(const Tensor& x) {
  return x.to(Device{}).to(DType::f32).to_vector<float>();
}

// Of sums in another order, and of a rounding to bf16 that falls the other way.
void check_close(const Tensor& found, const Tensor& expected, DType dtype) {
  const std::vector<float> a = to_floats(found);
  const std::vector<float> b = to_floats(expected);
  REQUIRE(a.size() == b.size());
  const float tolerance = dtype == DType::f32 ? 2e-6F : 8e-3F;
  float worst = 0.0F;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float error = std::abs(a[i] - b[i]) / std::max(1.0F, std::abs(b[i]));
    worst = error <= worst ? worst : error;  // NaN counts
  }
  CHECK(worst <= tolerance);
}

}  // namespace

void check_sharding(DType dtype, Device device, bool whole_matrices, std::int64_t expert) {
  const Mesh mesh(world(), 1, expert);
  ParameterStore store(3, ParameterStore::Placement{dtype, device}, mesh.shard_policy());
  make_parameters(store);
  ParameterStore single(3, ParameterStore::Placement{dtype, Device{}}, mesh.shard_policy());
  make_parameters(single);
  OptimizerSharding sharding(store, mesh, {.divide = true, .whole_matrices = whole_matrices});
  GradientReducer reducer(store, mesh, 0.001, &sharding);
  for (int step = 0; step < 2; ++step) {
    reducer.begin_step();
    for (const auto& p : store.parameters()) {
      p->slot().accumulate(gradient_of(*p, world().rank()).to(device));
    }
    reducer.finish();
    std::vector<Parameter*> all;
    for (const auto& p : store.parameters()) {
      INFO(p->name);
      const Parameter& alone = single.find(p->name);
      const Communicator& group = mesh.gradient_group(p->kind);
      Tensor sum;
      for (const std::int64_t r : group.all_gather(std::int64_t{world().rank()})) {
        const Tensor part = gradient_of(alone, static_cast<int>(r));
        if (!sum.defined()) {
          sum = part;
          continue;
        }
        for (std::int64_t i = 0; i < sum.numel(); ++i)
          sum.data<float>()[i] += part.data<float>()[i];
      }
      const bool divided = p->kind != ParameterKind::vector && p->kind != ParameterKind::router;
      CHECK(sharding.divides(*p) == (divided && !group.alone()));
      const auto [first, count] = p->master_rows;
      CHECK(group.sum(count) == p->shard.count * (sharding.divides(*p) ? 1 : group.size()));
      REQUIRE(p->master.dim(0) == count);
      const Tensor gradient = p->slot().grad.slice(first, first + count);
      check_close(gradient, sum.slice(first, first + count), DType::f32);
      update(*p, gradient.to(Device{}));
      update(alone, sum);
      all.push_back(p.get());
    }
    sharding.gather({all.begin(), all.begin() + 3});
    sharding.gather({all.begin() + 3, all.end()});
    sharding.finish();
    for (const Parameter* p : all) {
      INFO(p->name);
      check_close(p->value, single.find(p->name).value, dtype);
      const auto [first, count] = p->master_rows;
      check_close(p->master, single.find(p->name).master.slice(first, first + count), DType::f32);
    }
  }
}

}  // namespace fulcrum::testing
