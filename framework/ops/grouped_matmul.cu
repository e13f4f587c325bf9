#include <climits>

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_kernels.cuh"

namespace fulcrum::ops::cuda {
namespace {

// Tiles of the width that wastes least. Narrow products read shared memory more often for each
// multiplication, so columns count more there.
GroupedTiles best_tiles(std::int64_t columns) {
  const auto cost = [](std::int64_t part) { return part > 128 ? 208 : part > 64 ? 160 : 112; };
  const std::int64_t of_192 =
      columns / 192 * cost(192) + (columns % 192 == 0 ? 0 : cost(columns % 192));
  const std::int64_t of_128 =
      columns / 128 * cost(128) + (columns % 128 == 0 ? 0 : cost(columns % 128));
  return of_192 <= of_128 ? GroupedTiles::own_192 : GroupedTiles::own_128;
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
  const DType expected = form == Form::weight ? DType::f32 : DType::bf16;
  const bool fits = a.dtype() == DType::bf16 && out.dtype() == expected && wide(a) && wide(b) &&
                    wide(out) && has_grouped_product_hopper();
  if (!fits || tiles == GroupedTiles::plain) {
    return grouped_product_plain(form, p, a, b, out.dtype());
  }
  grouped_product_hopper(form, p, a, b,
                         tiles == GroupedTiles::automatic ? best_tiles(p.columns) : tiles);
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
