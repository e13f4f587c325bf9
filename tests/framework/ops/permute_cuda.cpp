#include "framework/autograd/tape.h"
#include "framework/ops/permute.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/routing_samples.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;
using Indices = std::vector<std::int64_t>;

namespace {

Indices indices(const Tensor& x) { return x.to(Device{}).to_vector<std::int64_t>(); }

void check_permutation(const Tensor& experts, std::int64_t count) {
  INFO(experts.dim(0) << " x " << experts.dim(1) << ", " << count << " experts");
  const Permutation cpu = make_permutation(experts, count);
  const Permutation cuda = make_permutation(experts.to(cuda_device()), count);
  CHECK(indices(cuda.offsets) == indices(cpu.offsets));
  CHECK(indices(cuda.slot) == indices(cpu.slot));
  Indices source = indices(cpu.source);
  source.resize(static_cast<std::size_t>(experts.numel()), -1);
  CHECK(indices(cuda.source) == source);
}

// There and back; ids may drop slots.
std::vector<Tensor> move(const std::vector<Tensor>& x, std::int64_t count) {
  const Permutation p = make_permutation(x[0], count);
  const Tensor in = x[1];
  return {combine(permute(in, p), p), combine(permute(in, p), p, x[2])};
}

}  // namespace

TEST_CASE("permutations on CUDA equal those on the CPU", "[gpu][ops]") {
  poison_memory(true);
  for (const double dropped : {0.0, 0.2}) {
    check_permutation(random_experts(1, 1, 1, dropped, 1), 1);
    check_permutation(random_experts(3, 2, 5, dropped, 2), 5);
    check_permutation(random_experts(1003, 6, 64, dropped, 3), 64);
    check_permutation(random_experts(5001, 8, 512, dropped, 4), 512);
    check_permutation(random_experts(777, 16, 1024, dropped, 5), 1024);
    check_permutation(random_experts(99, 16, 16, dropped, 6), 16);
    check_permutation(random_experts(40009, 6, 33, dropped, 7), 33);
  }
  check_permutation(Tensor::full({3000, 2}, 7, DType::i32), 9);  // one expert has all
  check_permutation(Tensor::full({300, 2}, -1, DType::i32), 9);  // and none any
  check_permutation(Tensor::empty({0, 4}, DType::i32), 9);
  poison_memory(false);
}

TEST_CASE("permute and combine on CUDA equal those on the CPU", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t width : {1, 8, 67, 384, 2048, 2056}) {
      for (const std::int64_t k : {1, 2, 3, 5, 8, 11}) {
        const std::int64_t n = width > 1000 ? 61 : 403;
        INFO(name_of(dtype) << " " << n << " x " << width << ", " << k << " slots");
        const auto errors = cuda_errors([](const auto& x) { return move(x, 13); },
                                        {random_experts(n, k, 13, k % 2 == 0 ? 0.2 : 0.0, 1),
                                         random({n, width}, 2), random({n, width}, 3)},
                                        dtype);
        CHECK(errors.outputs < cuda_tolerance(dtype));
        CHECK(errors.gradients < cuda_tolerance(dtype));
      }
    }
  }
}

TEST_CASE("rows of no slot are zero on CUDA", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor experts = random_experts(500, 4, 8, 0.3, 1);
  for (const std::int64_t width : {7, 64}) {
    poison_memory(true);
    const Permutation p = make_permutation(experts.to(device), 8);
    const Tensor rows = permute(Tensor::full({500, width}, 1.0, DType::bf16, device), p);
    poison_memory(false);
    const std::int64_t kept = indices(p.offsets).back();
    REQUIRE(kept < 2000);
    const Tensor host = rows.to(DType::f32).to(Device{});
    for (std::int64_t i = 0; i < host.numel(); ++i) {
      CHECK(host.data<float>()[i] == (i < kept * width ? 1.0f : 0.0f));
    }
  }
}

TEST_CASE("combine on CUDA gives the same bits again", "[gpu][ops]") {
  const Device device = cuda_device();
  const std::int64_t n = 3000, k = 6, width = 384;
  const Tensor experts = random_experts(n, k, 64, 0.0, 1).to(device);
  const Tensor rows = random({n * k, width}, 2).to(DType::f32).to(DType::bf16).to(device);
  const auto run = [&] {
    const Permutation p = make_permutation(experts, 64);
    return combine(rows, p).to(DType::f32).to(Device{}).to_vector<float>();
  };
  CHECK(run() == run());
}
