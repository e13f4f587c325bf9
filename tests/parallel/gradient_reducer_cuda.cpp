// Gradients that are reduced on GPUs while backward goes on. Several ranks on one GPU: see
// tests/gpu.

#include <algorithm>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/cuda_graph.h"
#include "parallel/gradient_reducer.h"
#include "tests/catch.h"
#include "tests/parallel/sharding.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::world;
using fulcrum::testing::world_gpu;

namespace {

constexpr int kParameters = 9;
constexpr int kMicroBatches = 2;

void make_parameters(ParameterStore& store) {
  for (int k = 0; k < kParameters; ++k) {
    const ParameterKind kind = k % 4 == 3   ? ParameterKind::expert
                               : k % 4 == 2 ? ParameterKind::vector
                                            : ParameterKind::matrix;
    store.create(fmt::format("w{}", k), kind, {8, 1700 * k + 1}, Initializer::normal(1.0));
  }
}

// Small integers, whose sums are exact in any order. Rank r uses parameter k never, or once or
// twice.
int uses(int k, int rank) {
  if (k == 4) return 0;
  if (k == 6) return rank == 0 ? 1 : 0;
  return 1 + (k + rank) % 2;
}
double factor(int k, int rank, int micro_batch) {
  return 1.0 + k + 10.0 * rank + 3.0 * micro_batch;
}

// A loss whose gradient by w is the factor, everywhere.
Tensor use(const Tensor& w, double factor) {
  Tensor loss = Tensor::full({1}, 1.0, DType::f32, w.device());
  Tape::recording({w})->record("use", {w}, {&loss}, [w, factor](Backward& b) {
    b.accumulate(0, Tensor::full(w.shape(), factor, DType::f32, w.device()));
  });
  return loss;
}

void step(const ParameterStore& store, GradientReducer& reducer, bool overlap) {
  const int rank = world().rank();
  reducer.begin_step();
  for (int m = 0; m < kMicroBatches; ++m) {
    Tape tape;
    std::vector<Tensor> losses;
    std::vector<Tensor> seeds;
    {
      const Tape::Scope recording(tape);
      for (int k = 0; k < kParameters; ++k) {
        for (int u = 0; u < uses(k, rank); ++u) {
          losses.push_back(use(store.find(fmt::format("w{}", k)).value, factor(k, rank, m)));
          seeds.push_back(losses.back().detach());
        }
      }
    }
    if (overlap && m + 1 == kMicroBatches) reducer.arm();
    tape.backward(losses, seeds);
  }
  reducer.finish();
}

void check_sums(const ParameterStore& store, const Mesh& mesh) {
  for (const auto& p : store.parameters()) {
    const int k = p->name[1] - '0';
    double expected = 0.0;
    for (const std::int64_t r :
         mesh.gradient_group(p->kind).all_gather(std::int64_t{world().rank()})) {
      for (int m = 0; m < kMicroBatches; ++m) {
        const int rank = static_cast<int>(r);
        expected += uses(k, rank) * factor(k, rank, m);
      }
    }
    const auto [first, count] = p->master_rows;
    const std::vector<float> gradient =
        p->slot().grad.slice(first, first + count).to(Device{}).to_vector<float>();
    INFO(p->name << ": " << expected);
    CHECK(std::all_of(gradient.begin(), gradient.end(),
                      [&](float g) { return g == static_cast<float>(expected); }));
  }
}

}  // namespace

TEST_CASE("gradients on GPUs are sums over ranks and micro-batches", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  for (const std::int64_t expert : {1, 2}) {
    if (world().size() % expert != 0) continue;
    const Mesh mesh(world(), 1, expert);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const bool divide : {false, true}) {
        for (const double mib : {1e-6, 0.2, 16.0}) {
          INFO(name_of(dtype) << (divide ? ", divided, " : ", ") << mib << " MiB");
          ParameterStore store(3, ParameterStore::Placement{dtype, gpu}, mesh.shard_policy());
          make_parameters(store);
          const OptimizerSharding sharding(store, mesh, {.divide = divide});
          GradientReducer reducer(store, mesh, mib, &sharding);
          for (const bool overlap : {true, false, true}) {
            step(store, reducer, overlap);
            check_sums(store, mesh);
          }
          CudaGraph graph;
          graph.capture([&] { step(store, reducer, /*overlap=*/true); });
          for (int replay = 0; replay < 3; ++replay) {
            for (const auto& p : store.parameters()) p->slot().grad.fill(-1.0);
            graph.replay();
            check_sums(store, mesh);
          }
        }
      }
    }
  }
}

TEST_CASE("ranks divide masters, gradients and values on GPUs", "[gpu][mpi]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool whole_matrices : {false, true}) {
      for (const std::int64_t expert : {1, 2}) {
        if (world().size() % expert != 0) continue;
        testing::check_sharding(dtype, world_gpu(), whole_matrices, expert);
      }
    }
  }
}
