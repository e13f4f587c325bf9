#pragma once
// The loading side of a grouped product on Hopper: one warp of a block takes tile after tile, tells
// the warpgroups that multiply, and asks the copy engine for the operands.

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_ring.cuh"

namespace fulcrum::ops::cuda {

// Tiles that blocks have taken beyond their first, and blocks that found no more; zero between
// launches. Products follow each other on one stream. A tile's result does not depend on who
// computes it.
static __device__ struct { unsigned tiles, blocks; } taken;

template <class L>
struct GroupedLoader : L {
  using Ring = GroupedRing<L>;
  using L::chunks, L::kChunk, L::kForm, L::kLinesA, L::kTileColumns;

  __device__ static void run(const GroupedProduct& p, const CUtensorMap* map_a,
                             const CUtensorMap* map_b, Ring ring) {
    const bool leader = threadIdx.x % 32 == 0;
    if (leader) {
      hopper::prefetch_map(map_a);
      hopper::prefetch_map(map_b);
    }
    typename L::Walk walk(p);
    GroupedMail<L> mail{ring.base, 0};
    GroupedOrder order{};
    int t = blockIdx.x;
    while (walk.find(t, order.tile)) {
      if (leader) {
        order.stage = ring.stage;
        order.parity = ring.parity;
        mail.send(order);
        load(order.tile, p, map_a, map_b, ring);
        // Asked for as late as possible, that blocks with long tiles take fewer; the stages that
        // are full meanwhile hide how long the answer takes.
        t = gridDim.x + static_cast<int>(atomicAdd(&taken.tiles, 1u));
      }
      t = __shfl_sync(0xffffffffu, t, 0);
    }
    if (!leader) return;
    order.tile.group = -1;
    for (int i = 0; i < L::kTeams; ++i) mail.send(order);
    if (atomicAdd(&taken.blocks, 1u) == gridDim.x - 1) {
      taken.tiles = 0;  // nobody asks any more
      taken.blocks = 0;
    }
  }

  __device__ static void load(const GroupedTile& tile, const GroupedProduct& p,
                              const CUtensorMap* map_a, const CUtensorMap* map_b, Ring& ring) {
    const int columns = min(kTileColumns, p.columns - tile.column);
    const int boxes_a = tile.row_end - tile.row > 64 ? 2 : 1;
    const int boxes_b = (columns + 63) / 64;
    for (int c = chunks(tile), k = tile.first; c > 0; --c, k += kChunk) {
      hopper::barrier_wait(ring.empty(), ring.parity ^ 1);
      // Boxes that lie partly outside of the tensor bring all of their bytes, too.
      const std::uint32_t full = ring.full();
      hopper::barrier_expect(full, (boxes_a + boxes_b) * hopper::kTileBytes);
#pragma unroll 1
      for (int i = 0; i < boxes_a; ++i) {
        const std::uint32_t to = ring.a() + i * hopper::kTileBytes;
        const int row = tile.row + 64 * i;
        if constexpr (kLinesA == hopper::Lines::inner) {
          hopper::copy_box(to, map_a, full, k, row, 0);
        } else {
          hopper::copy_box(to, map_a, full, row, k, 0);
        }
      }
#pragma unroll 1
      for (int i = 0; i < boxes_b; ++i) {
        const std::uint32_t to = ring.b() + i * hopper::kTileBytes;
        const int column = tile.column + 64 * i;
        const int x = kForm == Form::forward ? k : column;
        const int y = kForm == Form::forward ? column : k;
        const int z = kForm == Form::weight ? 0 : tile.group;
        hopper::copy_box(to, map_b, full, x, y, z);
      }
      ring.advance();
    }
  }
};

}  // namespace fulcrum::ops::cuda
