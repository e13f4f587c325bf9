#include <algorithm>
#include <climits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_kernels.cuh"

namespace fulcrum::ops::cuda {
namespace {

// The tiling that takes least time: nanoseconds of a block for a chunk (64 contraction elements) of
// a tile of each width, and for what a tile takes beside. They fit the times of 64 groups of 512
// rows, 2816 × 2048 and 2048 × 1408, and of 3072 rows, 256 × 384, on an H100 at its power limit.
GroupedTiles best_tiles(std::int64_t columns, std::int64_t depth) {
  constexpr double kOf256 = 810, kOf192 = 740, kOf128 = 620, kOf64 = 600;
  constexpr double kShared = 1700;  // nothing is multiplied while both warpgroups store
  constexpr double kOwn = 600;
  const double chunks = static_cast<double>(depth) / 64.0;
  const auto time = [&](std::int64_t width, double of_width, double beside) {
    const std::int64_t rest = columns % width;
    const double of_rest = rest > 128 ? of_width : rest > 64 || width == 256 ? kOf128 : kOf64;
    const double full = static_cast<double>(columns / width) * (of_width * chunks + beside);
    return rest == 0 ? full : full + of_rest * chunks + beside;
  };
  const double of_256 = time(256, kOf256, kShared);
  const double of_192 = time(192, kOf192, kOwn);
  const double of_128 = time(128, kOf128, kOwn);
  if (of_256 < std::min(of_192, of_128)) return GroupedTiles::shared_256;
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
    tiles = best_tiles(p.columns, depth);
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
