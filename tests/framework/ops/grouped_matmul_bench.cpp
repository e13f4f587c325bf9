// Speed of grouped products on CUDA: fulcrum_tests "[grouped][bench]". TFLOP/s count 2 · rows · out
// · in; GB/s what must cross memory once. Every tiling is timed. Operands and results of every
// shape are larger than the L2 cache together.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>

#include "framework/core/cuda_memory.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/grouped_products.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

using cuda::GroupedTiles;

// Normal bf16 values, a pattern whose length is prime to any width.
Tensor random_on_device(const Shape& shape, std::uint64_t seed, double scale) {
  const Device device = cuda_device();
  const Tensor result = Tensor::empty(shape, DType::bf16, device);
  const Tensor flat = result.reshape({-1});
  const std::int64_t n = flat.numel();
  std::int64_t done = std::min<std::int64_t>(n, 1000003);
  flat.slice(0, done).copy_from(random({done}, seed, scale).to(DType::bf16).to(device));
  while (done < n) {
    const std::int64_t more = std::min(done, n - done);
    flat.slice(done, done + more).copy_from(flat.slice(0, more));
    done += more;
  }
  return result;
}

// Median seconds of a launch, over batches of launches that follow each other.
double seconds_of(const std::function<void()>& launch) {
  constexpr int kBatches = 7;
  constexpr int kLaunches = 10;
  for (int i = 0; i < 3; ++i) launch();
  cuda_synchronize();
  std::vector<double> times;
  for (int b = 0; b < kBatches; ++b) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kLaunches; ++i) launch();
    cuda_synchronize();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count() / kLaunches);
  }
  std::sort(times.begin(), times.end());
  return times[kBatches / 2];
}

// balanced: every group has the same rows; else as router's choices vary (log-normal, σ = 0.5).
Tensor offsets_of(std::int64_t groups, std::int64_t rows, bool balanced) {
  std::vector<double> weights(static_cast<std::size_t>(groups), 1.0);
  if (!balanced) {
    const Tensor draws = random({groups}, 3);
    for (std::int64_t g = 0; g < groups; ++g) {
      weights[static_cast<std::size_t>(g)] = std::exp(0.5 * draws.data<double>()[g]);
    }
  }
  double sum = 0.0;
  for (const double w : weights) sum += w;
  std::vector<std::int64_t> offsets = {0};
  double reached = 0.0;
  for (const double w : weights) {
    reached += w / sum;
    offsets.push_back(
        std::min(rows, static_cast<std::int64_t>(reached * static_cast<double>(rows) + 0.5)));
  }
  offsets.back() = rows;
  return Tensor::from(offsets, {groups + 1}).to(cuda_device());
}

}  // namespace

TEST_CASE("speed of grouped products", "[.][gpu][bench][grouped]") {
  struct Shape4 {
    std::int64_t groups, rows, out, in;
  };
  const std::vector<Shape4> shapes = {{64, 64 * 512, 2816, 2048}, {64, 64 * 512, 2048, 1408},
                                      {72, 72 * 680, 1792, 2560}, {16, 16 * 2048, 4096, 2048},
                                      {64, 196608, 256, 384},     {64, 196608, 384, 128},
                                      {32, 131072, 256, 512},     {32, 131072, 512, 128}};
  const std::vector<std::pair<GroupedTiles, const char*>> tilings = {
      {GroupedTiles::automatic, "auto"},
      {GroupedTiles::own_128, "128x128"},
      {GroupedTiles::own_192, "128x192"},
      {GroupedTiles::shared_256, "128x256"}};
  std::printf("%-34s %-12s %-9s %9s %9s %8s\n", "groups, rows, out, in, routing", "form", "tiles",
              "us", "TFLOP/s", "GB/s");
  for (const auto& [groups, rows, out, in] : shapes) {
    const Tensor x = random_on_device({rows, in}, 1, 1.0);
    const Tensor dy = random_on_device({rows, out}, 2, 1.0);
    const Tensor weight = random_on_device({groups, out, in}, 3, 0.02);
    const Tensor y = Tensor::empty({rows, out}, DType::bf16, x.device());
    const Tensor dx = Tensor::empty({rows, in}, DType::bf16, x.device());
    const Tensor d = Tensor::zeros({groups, out, in}, DType::f32, x.device());
    for (const bool balanced : {true, false}) {
      const Tensor offsets = offsets_of(groups, rows, balanced);
      for (const auto& [tiles, tiles_name] : tilings) {
        const auto row = [&, tiles_name = tiles_name, groups = groups, rows = rows, out = out,
                          in = in](const char* form, double bytes,
                                   const std::function<void()>& launch) {
          const double seconds = seconds_of(launch);
          char shape[64];
          std::snprintf(shape, sizeof shape, "%ld, %ld, %ld, %ld, %s", long(groups), long(rows),
                        long(out), long(in), balanced ? "even" : "uneven");
          std::printf("%-34s %-12s %-9s %9.1f %9.1f %8.0f\n", shape, form, tiles_name,
                      seconds * 1e6,
                      2e-12 * static_cast<double>(rows) * static_cast<double>(out) *
                          static_cast<double>(in) / seconds,
                      bytes * 1e-9 / seconds);
          std::fflush(stdout);
        };
        const auto activations = static_cast<double>(x.bytes() + dy.bytes());
        const auto weights = static_cast<double>(weight.bytes());
        row("forward", activations + weights,
            [&, tiles = tiles] { grouped_forward(x, weight, offsets, y, false, tiles); });
        row("input", activations + weights,
            [&, tiles = tiles] { grouped_input(dy, weight, offsets, dx, false, tiles); });
        row("weight", activations + 2 * weights,
            [&, tiles = tiles] { grouped_weight(dy, x, offsets, d, false, tiles); });
        row("weight add", activations + 4 * weights,
            [&, tiles = tiles] { grouped_weight(dy, x, offsets, d, true, tiles); });
      }
    }
  }
}
