#include <algorithm>
#include <climits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_kernels.cuh"

namespace fulcrum::ops::cuda {
namespace {

// The tiling that takes least time: nanoseconds of a block for a chunk (64 contraction elements) of
// a tile of each width, and for the store of a tile where no other is multiplied meanwhile. Widths
// from 128 fit the times of 64 groups of 512 rows, 2816 × 2048, on an H100, with the store assumed;
// of_64 is an estimate.
GroupedTiles best_tiles(Form form, std::int64_t columns, std::int64_t depth) {
  struct Cost {
    double of_256, of_192, of_128, of_64;
  };
  constexpr Cost kForward = {730, 675, 537, 400};
  constexpr Cost kOthers = {914, 737, 570, 420};
  const Cost& cost = form == Form::forward ? kForward : kOthers;
  const double chunks = static_cast<double>(depth) / 64.0;
  const auto tiles = [&](std::int64_t width, double of_width, double of_store) {
    const std::int64_t rest = columns % width;
    const double of_rest = rest == 0                   ? 0.0
                           : rest <= 64 && width < 256 ? cost.of_64
                           : rest <= 128               ? cost.of_128
                                                       : of_width;
    return static_cast<double>(columns / width) * (of_width * chunks + of_store) +
           of_rest * chunks + (rest == 0 ? 0.0 : of_store);
  };
  constexpr double kStore = 2200;
  const double of_256 = tiles(256, cost.of_256, kStore);
  const double of_192 = tiles(192, cost.of_192, 0.0);
  const double of_128 = tiles(128, cost.of_128, 0.0);
  // There, 256 columns came out level for the input's gradient and 14 % behind for the weight's.
  if (form == Form::forward && of_256 < std::min(of_192, of_128)) return GroupedTiles::shared_256;
  return of_192 < of_128 ? GroupedTiles::own_192 : GroupedTiles::own_128;
}

void run(Form form, const GroupedProduct& p, const Tensor& a, const Tensor& b, const Tensor& out,
         GroupedTiles tiles) {
  FULCRUM_REQUIRE(a.numel() / std::max<std::int64_t>(1, a.dim(-1)) < INT_MAX &&
                      b.numel() / std::max<std::int64_t>(1, b.dim(-1)) < INT_MAX,
                  "grouped_linear: too many rows: {} and {}", a.shape(), b.shape());
  const auto wide = [](const Tensor& x) {
    return x.numel() > 0 && x.dim(-1) % 8 == 0 &&
           reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0;
  };
  const bool has_dtype =
      out.dtype() == DType::bf16 || (out.dtype() == DType::f32 && form == Form::weight);
  const bool fits = a.dtype() == DType::bf16 && has_dtype && wide(a) && wide(b) && wide(out) &&
                    has_grouped_product_hopper();
  if (!fits || tiles == GroupedTiles::plain) {
    return grouped_product_plain(form, p, a, b, out.dtype());
  }
  if (tiles == GroupedTiles::automatic) {
    const std::int64_t depth = form == Form::weight ? p.rows / std::max(1, p.groups) : p.depth;
    tiles = best_tiles(form, p.columns, depth);
  }
  grouped_product_hopper(form, p, a, b, out.dtype(), tiles);
}

// Of the two forms whose result has a row for each row of the activations.
void run_rows(Form form, const Tensor& a, const Tensor& weight, const Tensor& offsets,
              const Tensor& out, bool add, GroupedTiles tiles) {
  const GroupedProduct p = {.offsets = device_data<std::int64_t>(offsets),
                            .groups = static_cast<int>(weight.dim(0)),
                            .rows = static_cast<int>(a.dim(0)),
                            .out_rows = 0,
                            .columns = static_cast<int>(out.dim(1)),
                            .depth = static_cast<int>(a.dim(1)),
                            .out = out.raw(),
                            .add = add};
  run(form, p, a, weight, out, tiles);
}

}  // namespace

void grouped_rows(const Tensor& x, const Tensor& weight, const Tensor& offsets, const Tensor& y,
                  bool add, GroupedTiles tiles) {
  run_rows(Form::forward, x, weight, offsets, y, add, tiles);
}

void grouped_rows_back(const Tensor& dy, const Tensor& weight, const Tensor& offsets,
                       const Tensor& dx, bool add, GroupedTiles tiles) {
  run_rows(Form::input, dy, weight, offsets, dx, add, tiles);
}

void grouped_weights(const Tensor& dy, const Tensor& x, const Tensor& offsets, const Tensor& d,
                     bool add, GroupedTiles tiles) {
  const GroupedProduct p = {.offsets = device_data<std::int64_t>(offsets),
                            .groups = static_cast<int>(d.dim(0)),
                            .rows = static_cast<int>(x.dim(0)),
                            .out_rows = static_cast<int>(d.dim(1)),
                            .columns = static_cast<int>(d.dim(2)),
                            .depth = 0,
                            .out = d.raw(),
                            .add = add};
  run(Form::weight, p, dy, x, d, tiles);
}

}  // namespace fulcrum::ops::cuda
