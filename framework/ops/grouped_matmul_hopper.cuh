#pragma once
// Grouped products on Hopper's tensor cores.
//
// A block stays on its multiprocessor and takes tile after tile. One warp asks the copy engine for
// operands, chunk by chunk of 64 contraction elements, into a ring of stages in shared memory; two
// warpgroups multiply. Either both share a tile of 128 rows (Teams::shared), or each owns every
// second tile, so that one stores its result while the other keeps the tensor cores busy. Then they
// take turns: a warpgroup waits for chunks only when the other has seen all of its own arrive
// (grouped_matmul_ring.cuh says why).
//
// Operands whose rows are not their contraction index come as boxes of 64 rows × 64 contraction
// elements, the others as boxes of 64 contraction elements × 64 rows (hopper.cuh, Lines). A group's
// rows begin and end anywhere: boxes may hold rows of other groups. As rows of the result these are
// not stored; as contraction indices (Form::weight) they are overwritten with zeros before the last
// product.

#include "framework/core/cuda_kernel.cuh"
#include "framework/core/wgmma.cuh"
#include "framework/ops/grouped_matmul_load.cuh"
#include "framework/ops/grouped_matmul_store.cuh"

namespace fulcrum::ops::cuda {

template <class L>
struct GroupedKernel : L {
  using Ring = GroupedRing<L>;
  using Mail = GroupedMail<L>;
  using Store = GroupedStore<L::kForm, typename L::Out>;
  using L::chunks, L::kChunk, L::kForm, L::kLinesA, L::kLinesB, L::kShared, L::kTileColumns;
  // 64-row parts of a tile that one warpgroup multiplies.
  static constexpr int kParts = kShared ? 1 : 2;

  // Overwrites contraction indices from `valid` in a stage with zeros; each is one line of 128
  // bytes in every box. The fence also orders the writes before copies into the stage later.
  __device__ static void mask(const Ring& ring, int valid) {
    const int lines = kChunk - valid;
    constexpr int kBoxes = L::kStageBytes / hopper::kTileBytes;
    constexpr int kTeam = kShared ? 256 : 128;
    for (int i = threadIdx.x % kTeam; i < kBoxes * lines * 8; i += kTeam) {
      const int line = i / 8 % lines;
      const int box = i / 8 / lines;
      const std::uint32_t to =
          ring.a() + box * hopper::kTileBytes + (valid + line) * 128 + i % 8 * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
    }
    hopper::fence_async_shared();
    hopper::named_barrier(kShared ? 1 : 1 + threadIdx.x / 128, kTeam);
  }

  // Contraction elements of the last chunk when it is to be masked, else 0.
  __device__ static int masked(const GroupedTile& tile) {
    return kForm == Form::weight ? tile.depth % kChunk : 0;
  }

  // The barrier that a warpgroup waits at for its turn.
  __device__ static std::uint32_t turn(const Ring& ring, std::uint32_t group) {
    return ring.base + L::kTurnsAt + group * 8;
  }
  // By a warp that has seen all chunks of its tile arrive.
  __device__ static void pass_turn(const Ring& ring) {
    if (!kShared && threadIdx.x % 32 == 0) {
      hopper::barrier_arrive(turn(ring, threadIdx.x / 128 ^ 1));
    }
  }

  template <int kColumns, int kUsedParts>
  __device__ static void multiply(float (*sums)[kColumns / 2], int first_part,
                                  const GroupedTile& tile, Ring& ring) {
    std::uint32_t held = 0;  // the stage that products still read
#pragma unroll
    for (int i = 0; i < kUsedParts * kColumns / 2; ++i)
      sums[i / (kColumns / 2)][i % (kColumns / 2)] = 0.0f;
    int left = chunks(tile);
#pragma unroll 1
    do {
      hopper::barrier_wait(ring.full(), ring.parity);
      if (left == 1) {
        pass_turn(ring);
        if (masked(tile) != 0) mask(ring, masked(tile));
      }
      const std::uint64_t a = hopper::operand<kLinesA>(ring.a() + first_part * hopper::kTileBytes);
      const std::uint64_t b = hopper::operand<kLinesB>(ring.b());
      hopper::products_begin();
#pragma unroll
      for (int s = 0; s < kChunk / 16; ++s) {
#pragma unroll
        for (int i = 0; i < kUsedParts; ++i) {
          hopper::product<kLinesA, kLinesB, kColumns>(
              sums[i],
              a + hopper::operand_offset(i * hopper::kTileBytes) +
                  s * hopper::kOperandStep<kLinesA>,
              b + s * hopper::kOperandStep<kLinesB>);
        }
      }
      hopper::products_commit();
      hopper::products_wait<1>();
      if (held != 0) Ring::release(held);
      held = ring.empty();
      ring.advance();
    } while (--left > 0);
    hopper::products_wait<0>();
#pragma unroll
    for (int i = 0; i < kUsedParts; ++i) hopper::sums_changed<kColumns / 2>(sums[i]);
    Ring::release(held);
  }

  // Lets the chunks of a tile pass that has no rows for this warpgroup.
  __device__ static void skip(const GroupedTile& tile, Ring& ring) {
    for (int c = chunks(tile); c > 0; --c, ring.advance()) {
      hopper::barrier_wait(ring.full(), ring.parity);
      if (c == 1) {
        pass_turn(ring);
        if (masked(tile) != 0) mask(ring, masked(tile));
      }
      Ring::release(ring.empty());
    }
  }

  // threadIdx.x, read where it stands: what depends on it is not computed before the products and
  // kept in registers that the sums need.
  __device__ static int late_thread() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
  }

  template <int kColumns, int kUsedParts>
  __device__ static void tile_of(const GroupedTile& tile, const GroupedProduct& p, int first_part,
                                 Ring& ring) {
    float sums[kUsedParts][kColumns / 2];
    multiply<kColumns, kUsedParts>(sums, first_part, tile, ring);
    const int thread = late_thread();
    const std::uint32_t buffer = ring.base + L::kStoreAt + thread / 32 * L::kWarpBytes;
    const int warp_row = thread % 128 / 32 * 16;
    if (p.add) {
      for (int i = 0; i < kUsedParts; ++i) {
        const int row = tile.row + (first_part + i) * 64 + warp_row;
        Store::template prefetch<kColumns>(row, tile, p, thread % 32);
      }
    }
#pragma unroll
    for (int i = 0; i < kUsedParts; ++i) {
      const int row = tile.row + (first_part + i) * 64 + warp_row;
      if (row >= tile.row_end) continue;
      if (p.add) {
        Store::template rows<kColumns, true>(sums[i], row, tile, p, thread % 32, buffer);
      } else {
        Store::template rows<kColumns, false>(sums[i], row, tile, p, thread % 32, buffer);
      }
    }
  }

  template <int kColumns>
  __device__ static void tile_of(const GroupedTile& tile, const GroupedProduct& p, int first_part,
                                 Ring& ring) {
    if constexpr (kParts == 2) {
      if (tile.row_end - tile.row > 64) {
        return tile_of<kColumns, 2>(tile, p, first_part, ring);
      }
    }
    tile_of<kColumns, 1>(tile, p, first_part, ring);
  }

  __device__ static void compute(const GroupedProduct& p, Ring ring) {
    const std::uint32_t group = threadIdx.x / 128;
    const int first_part = kShared ? group : 0;
    Mail mail{ring.base, kShared ? 0u : group};
    std::uint32_t turn_parity = group ^ 1;  // the first turn is warpgroup 0's
    while (true) {
      const GroupedOrder order = mail.receive(L::kTeams);
      const GroupedTile& tile = order.tile;
      if (tile.group < 0) break;
      ring.stage = order.stage;
      ring.parity = order.parity;
      if constexpr (!kShared) {
        hopper::barrier_wait(turn(ring, group), turn_parity);
        turn_parity ^= 1;
      }
      const int columns = p.columns - tile.column;
      const int row = tile.row + 64 * first_part;
      if (tile.depth == 0) {
        pass_turn(ring);
        if (!p.add) Store::template zeros<64 * kParts, kTileColumns>(row, tile, p);
      } else if (row >= tile.row_end) {
        skip(tile, ring);
      } else if (columns <= 64 && !kShared) {
        tile_of<64>(tile, p, first_part, ring);
      } else if (columns <= 128 || kTileColumns == 128) {
        tile_of<128>(tile, p, first_part, ring);
      } else {
        tile_of<kTileColumns>(tile, p, first_part, ring);
      }
    }
  }

  // Rows behind the last group, by the 96 threads of each block that have nothing else to do.
  __device__ static void zero_rest(const GroupedProduct& p) {
    if (kForm == Form::weight || p.add) return;
    const std::int64_t end = static_cast<std::int64_t>(p.rows) * p.columns / 8;
    const std::int64_t first = p.offsets[p.groups] * p.columns / 8;
    for (std::int64_t i = first + blockIdx.x * 96 + threadIdx.x % 128 - 32; i < end;
         i += static_cast<std::int64_t>(gridDim.x) * 96) {
      static_cast<uint4*>(p.out)[i] = make_uint4(0, 0, 0, 0);
    }
  }

  __device__ static void run(const GroupedProduct& p, const CUtensorMap* map_a,
                             const CUtensorMap* map_b) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const Ring ring{hopper::shared_address(memory)};
    if (threadIdx.x == 0) {
      if (ring.base % 1024 != 0) __trap();
      ring.init();
      Mail{ring.base, 0}.init();
      for (std::uint32_t group = 0; group < 2; ++group) hopper::barrier_init(turn(ring, group), 4);
      hopper::barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x >= 256) {
      hopper::give_registers<L::kLoadRegisters>();
      if (threadIdx.x >= 288) {
        zero_rest(p);
      } else {
        GroupedLoader<L>::run(p, map_a, map_b, ring);
      }
    } else {
      hopper::take_registers<L::kSumRegisters>();
      compute(p, ring);
    }
  }
};

template <class L>
__global__ __launch_bounds__(384,
                             1) void grouped_kernel(const __grid_constant__ GroupedProduct p,
                                                    const __grid_constant__ CUtensorMap map_a,
                                                    const __grid_constant__ CUtensorMap map_b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  GroupedKernel<L>::run(p, &map_a, &map_b);
#else
  __trap();  // chosen for devices of sm_90a code only
#endif
}

}  // namespace fulcrum::ops::cuda
