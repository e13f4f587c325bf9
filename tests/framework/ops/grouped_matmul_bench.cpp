// Speed of grouped products on CUDA: fulcrum_tests "[grouped][bench]", and of each way
// to cut them into tiles: "[grouped_tilings]". tests/peers/torch_grouped.py times PyTorch's.
// A line has the microseconds and GB/s (what must cross memory once) of the first tiling, then the
// TFLOP/s (2 · rows · out · in) of every tiling. Operands and results of every shape are larger
// than the L2 cache together.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <thread>

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

using Tilings = std::vector<std::pair<GroupedTiles, const char*>>;

// Median seconds of a launch with each tiling, over batches of launches that follow each other. The
// tilings take turns, so that none has the GPU cooler than another. The pause before gives all rows
// the same start: at the power limit, which lasting products reach, clocks fall by a quarter.
std::vector<double> seconds_of(const Tilings& tilings,
                               const std::function<void(GroupedTiles)>& launch) {
  constexpr int kBatches = 7;
  constexpr int kLaunches = 8;
  std::vector<std::vector<double>> times(tilings.size());
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (int b = 0; b <= kBatches; ++b) {
    for (std::size_t i = 0; i < tilings.size(); ++i) {
      launch(tilings[i].first);
      cuda_synchronize();
      const auto start = std::chrono::steady_clock::now();
      for (int j = 0; j < kLaunches; ++j) launch(tilings[i].first);
      cuda_synchronize();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (b > 0) times[i].push_back(took.count() / kLaunches);
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& of_one : times) {
    std::sort(of_one.begin(), of_one.end());
    medians.push_back(of_one[kBatches / 2]);
  }
  return medians;
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

void time_products(const Tilings& tilings) {
  struct Case {
    std::int64_t groups, rows, out, in;
    bool balanced, adds;  // adds: weight gradients that are added are timed, too
  };
  const std::vector<Case> cases = {
      {64, 64 * 512, 2816, 2048, true, true},   {64, 64 * 512, 2816, 2048, false, false},
      {64, 64 * 512, 2048, 1408, true, false},  {72, 72 * 680, 1792, 2560, true, false},
      {16, 16 * 2048, 4096, 2048, true, false}, {64, 196608, 256, 384, true, false},
      {64, 196608, 256, 384, false, false},     {64, 196608, 384, 128, true, false},
      {64, 196608, 384, 128, false, false},
  };
  std::printf("%-31s %-10s %7s %5s", "groups, rows, out, in, routing", "form", "us", "GB/s");
  for (const auto& tiling : tilings) std::printf(" %7s", tiling.second);
  std::printf("\n");
  for (const Case& c : cases) {
    const Tensor x = random_on_device({c.rows, c.in}, 1, 1.0);
    const Tensor dy = random_on_device({c.rows, c.out}, 2, 1.0);
    const Tensor weight = random_on_device({c.groups, c.out, c.in}, 3, 0.02);
    const Tensor y = Tensor::empty({c.rows, c.out}, DType::bf16, x.device());
    const Tensor dx = Tensor::empty({c.rows, c.in}, DType::bf16, x.device());
    const Tensor d = Tensor::zeros(weight.shape(), DType::f32, x.device());
    const Tensor d16 = Tensor::zeros(weight.shape(), DType::bf16, x.device());
    const Tensor offsets = offsets_of(c.groups, c.rows, c.balanced);
    const auto row = [&](const char* form, double bytes,
                         const std::function<void(GroupedTiles)>& launch) {
      const std::vector<double> seconds = seconds_of(tilings, launch);
      char shape[64];
      std::snprintf(shape, sizeof shape, "%ld, %ld, %ld, %ld, %s", long(c.groups), long(c.rows),
                    long(c.out), long(c.in), c.balanced ? "even" : "uneven");
      std::printf("%-31s %-10s %7.1f %5.0f", shape, form, seconds[0] * 1e6,
                  bytes * 1e-9 / seconds[0]);
      const double flops = 2.0 * static_cast<double>(c.rows * c.out * c.in);
      for (const double s : seconds) std::printf(" %7.1f", flops * 1e-12 / s);
      std::printf("\n");
      std::fflush(stdout);
    };
    const auto activations = static_cast<double>(x.bytes() + dy.bytes());
    const auto weights = static_cast<double>(weight.bytes());
    row("forward", activations + weights,
        [&](GroupedTiles tiles) { grouped_forward(x, weight, offsets, y, false, tiles); });
    row("input", activations + weights,
        [&](GroupedTiles tiles) { grouped_input(dy, weight, offsets, dx, false, tiles); });
    for (const bool add : {false, true}) {
      if (add && !c.adds) continue;
      const double passes = add ? 2.0 : 1.0;
      row(add ? "weight16+=" : "weight16", activations + passes * weights,
          [&](GroupedTiles tiles) { grouped_weight(dy, x, offsets, d16, add, tiles); });
      row(add ? "weight32+=" : "weight32", activations + 2.0 * passes * weights,
          [&](GroupedTiles tiles) { grouped_weight(dy, x, offsets, d, add, tiles); });
    }
  }
}

}  // namespace

TEST_CASE("speed of grouped products", "[.][gpu][bench][grouped]") {
  time_products({{GroupedTiles::automatic, "auto"}});
}

TEST_CASE("speed of grouped products by tiling", "[.][gpu][bench][grouped_tilings]") {
  time_products({{GroupedTiles::automatic, "auto"},
                 {GroupedTiles::own_128, "128"},
                 {GroupedTiles::own_192, "192"},
                 {GroupedTiles::shared_256, "256"}});
}
