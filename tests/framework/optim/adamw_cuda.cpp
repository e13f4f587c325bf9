#include "framework/optim/adamw.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

// Parameters of many kinds and sizes: rounded and not, empty, of which some rows are held (starting
// at addresses that are no multiple of 16 bytes), and more than fit into one launch.
std::vector<Parameter*> make_parameters(ParameterStore& store) {
  const auto create = [&](const std::string& name, ParameterKind kind, const Shape& shape) {
    return &store.create(name, kind, shape, Initializer::normal(0.5));
  };
  std::vector<Parameter*> list = {
      create("matrix", ParameterKind::matrix, {211, 163}),
      create("router", ParameterKind::router, {7, 33}),
      create("empty", ParameterKind::expert, {0, 3, 4}),
      create("expert", ParameterKind::expert, {5, 12, 8}),
      create("vector", ParameterKind::vector, {37}),
      create("silent", ParameterKind::matrix, {64, 64}),
      create("embedding", ParameterKind::embedding, {300, 512}),
      create("odd rows", ParameterKind::matrix, {211, 163}),
      create("aligned rows", ParameterKind::head, {211, 64}),
      create("rows of a vector", ParameterKind::vector, {1001}),
      create("no rows", ParameterKind::matrix, {4, 4}),
  };
  keep_master_rows(*list[7], 5, 101);
  keep_master_rows(*list[8], 3, 200);
  keep_master_rows(*list[9], 333, 334);
  keep_master_rows(*list[10], 2, 0);
  for (int i = 0; i < 600; ++i) {
    list.push_back(create("small" + std::to_string(i), ParameterKind::vector, {20 + i % 9}));
  }
  return list;
}

// All tensors that steps change, on the CPU.
std::vector<Tensor> run(ParameterStore& store, int steps, DType moments = DType::f32) {
  const std::vector<Parameter*> parameters = make_parameters(store);
  AdamW optimizer(parameters, {0.8, 0.97, 1e-6, 0.3, moments, 5});
  for (int t = 1; t <= steps; ++t) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& p = *parameters[i];
      if (p.name == "silent") continue;
      const auto seed = static_cast<std::uint64_t>(t) * 1000 + i;
      set_gradient(p, random_gradient(p, seed, 1e-2).to(DType::f32));
      // No gradient in one step, though the old one is still there.
      p.slot().fresh = p.name == "expert" && t == 3;
    }
    optimizer.step(0.01 * t, 0.25);
  }
  return results_of(parameters, optimizer);
}

}  // namespace

TEST_CASE("AdamW on CUDA equals AdamW on the CPU", "[gpu][optim]") {
  const Device device = cuda_device();
  ParameterStore exact = make_store(DType::f64);
  const std::vector<Tensor> expected = run(exact, 5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ParameterStore store(7, ParameterStore::Placement{dtype, device});
    const std::vector<Tensor> found = run(store, 5);
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      INFO(name_of(dtype) << " tensor " << i << " " << to_string(found[i].shape()));
      if (found[i].numel() == 0) continue;
      const bool rounded = found[i].dtype() == DType::bf16;
      CHECK(relative_error(found[i], expected[i]) <
            cuda_tolerance(rounded ? DType::bf16 : DType::f32));
    }
    check_rounding(store);
  }
}

TEST_CASE("AdamW on CUDA rounds moments to bf16 as the CPU does", "[gpu][optim]") {
  const Device device = cuda_device();
  ParameterStore plain = make_store(DType::f32);
  const std::vector<Tensor> expected = run(plain, 5, DType::bf16);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ParameterStore store(7, ParameterStore::Placement{dtype, device});
    const std::vector<Tensor> found = run(store, 5, DType::bf16);
    REQUIRE(found.size() == expected.size());
    std::size_t rounded = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      INFO(name_of(dtype) << " tensor " << i << " " << to_string(found[i].shape()));
      if (found[i].numel() == 0) continue;
      if (expected[i].dtype() == DType::bf16) {
        // Moments differ by rounding of f32 alone, which moves one in some thousands across what
        // was drawn. Other draws would tell a third of them apart.
        ++rounded;
        REQUIRE(found[i].dtype() == DType::bf16);
        const auto x = expected[i].to(DType::f32).to_vector<float>();
        const auto y = found[i].to(DType::f32).to_vector<float>();
        std::size_t different = 0;
        for (std::size_t j = 0; j < x.size(); ++j) different += x[j] != y[j];
        CHECK(different <= 2 + x.size() / 500);
        CHECK(relative_error(found[i], expected[i]) < 1e-3);
      } else {
        CHECK(relative_error(found[i], expected[i]) <
              (found[i].dtype() == DType::bf16 ? cuda_tolerance(DType::bf16) : 1e-4));
      }
    }
    CHECK(rounded == 2 * 6);
    check_rounding(store);
  }
}

TEST_CASE("AdamW on CUDA gives the same bits in every run", "[gpu][optim]") {
  check_repeats([](ParameterStore& store) { return run(store, 3); });
  check_repeats([](ParameterStore& store) { return run(store, 3, DType::bf16); });
}
