#pragma once
// Grouped products on Hopper's tensor cores.
//
// A block stays on its multiprocessor and takes every gridDim-th tile. One warp asks the copy
// engine for operands, chunk by chunk of 64 contraction elements, into a ring of stages in shared
// memory; two warpgroups multiply. Either both share a tile of 128 rows (kShared), or each owns
// every second tile, so that one stores its result while the other keeps the tensor cores busy.
// Then they take turns: a warpgroup waits for chunks only when the other has seen all of its own
// arrive. Waiting by parity tells a phase from its neighbours only, and a stage whose last but one
// use is still on its way would pass for one that has been filled again.
//
// Operands whose rows are not their contraction index come as boxes of 64 rows × 64 contraction
// elements, the others as boxes of 64 contraction elements × 64 rows (hopper.cuh, Lines). A group's
// rows begin and end anywhere: boxes may hold rows of other groups. As rows of the result these are
// not stored; as contraction indices (Form::weight) they are overwritten with zeros before the last
// product.

#include "framework/core/cuda_kernel.cuh"
#include "framework/core/hopper.cuh"
#include "framework/core/wgmma.cuh"
#include "framework/ops/grouped_matmul_tiles.cuh"

namespace fulcrum::ops::cuda {

template <Form kForm, int kTileColumns, bool kShared>
struct GroupedKernel {
  static constexpr int kThreads = 384;  // two warpgroups that multiply, one that loads
  static constexpr int kTileRows = 128;
  static constexpr int kChunk = 64;  // contraction elements of a stage
  static constexpr int kBytesA = kTileRows / 64 * hopper::kTileBytes;
  static constexpr int kBytesB = kTileColumns / 64 * hopper::kTileBytes;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kWarpBytes = 2048;  // of results on their way to memory
  static constexpr int kStoreBytes = 8 * kWarpBytes;
  static constexpr int kSlots = 4;  // of tiles on their way from the loading warp to the others
  static constexpr int kStages = (227 * 1024 - kStoreBytes - 512) / kStageBytes;
  // Offsets in shared memory, behind stages and results.
  static constexpr int kSlotsAt = kStages * kStageBytes + kStoreBytes;
  static constexpr int kBarriersAt = kSlotsAt + kSlots * 32;
  static constexpr int kTurnsAt = kBarriersAt + 2 * (kStages + kSlots) * 8;
  static constexpr int kSharedBytes = kTurnsAt + 2 * 8;
  static constexpr int kTeams = kShared ? 1 : 2;  // of warps that work on one tile
  static constexpr int kReaders = 8 / kTeams;
  // Registers of a thread that loads and of one that multiplies; 384 threads have 168 each at
  // first.
  static constexpr int kLoadRegisters = kTileColumns == 192 ? 40 : 72;
  static constexpr int kSumRegisters = kTileColumns == 192 ? 232 : 216;
  // 64-row parts of a tile that one warpgroup multiplies.
  static constexpr int kParts = kShared ? 1 : 2;
  static constexpr hopper::Lines kLinesA =
      kForm == Form::weight ? hopper::Lines::outer : hopper::Lines::inner;
  static constexpr hopper::Lines kLinesB =
      kForm == Form::forward ? hopper::Lines::inner : hopper::Lines::outer;

  using Out = std::conditional_t<kForm == Form::weight, float, __nv_bfloat16>;
  using Walk = GroupedTileWalk<kForm, kTileRows, kTileColumns>;

  // Position in the ring of stages.
  struct Ring {
    std::uint32_t base;  // of shared memory
    std::uint32_t stage = 0, parity = 0;

    __device__ std::uint32_t a() const { return base + stage * kStageBytes; }
    __device__ std::uint32_t b() const { return a() + kBytesA; }
    __device__ std::uint32_t full() const { return base + kBarriersAt + stage * 8; }
    __device__ std::uint32_t empty() const { return full() + kStages * 8; }
    __device__ void advance() {
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  };

  __device__ static int chunks(const GroupedTile& tile) {
    return (tile.depth + kChunk - 1) / kChunk;
  }

  // By a warp that does not need a stage or slot any longer.
  __device__ static void release(std::uint32_t empty) {
    if (threadIdx.x % 32 == 0) hopper::barrier_arrive(empty);
  }

  // A tile, and where in the ring its first chunk is; group is negative behind the last tile.
  struct Order {
    GroupedTile tile;
    std::uint32_t stage, parity;
  };
  static_assert(sizeof(Order) == 32);

  // Tiles on their way.
  struct Mail {
    std::uint32_t base;
    std::uint32_t slot, parity = 0;

    __device__ std::uint32_t full() const { return base + kBarriersAt + (2 * kStages + slot) * 8; }
    __device__ std::uint32_t empty() const { return full() + kSlots * 8; }
    __device__ void advance(int slots) {
      slot += slots;
      if (slot >= kSlots) {
        slot -= kSlots;
        parity ^= 1;
      }
    }
    __device__ void send(const Order& order) {
      hopper::barrier_wait(empty(), parity ^ 1);
      int words[8];
      memcpy(words, &order, sizeof order);
      const std::uint32_t to = base + kSlotsAt + slot * 32;
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + i * 4), "r"(words[i]),
                     "r"(words[i + 1]), "r"(words[i + 2]), "r"(words[i + 3])
                     : "memory");
      }
      hopper::barrier_arrive(full());
      advance(1);
    }
    // By all lanes of a warp; takes this slot and goes on by `slots`.
    __device__ Order receive(int slots) {
      hopper::barrier_wait(full(), parity);
      int words[8];
      const std::uint32_t from = base + kSlotsAt + slot * 32;
#pragma unroll
      for (int i = 0; i < 8; i += 4) {
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[i]), "=r"(words[i + 1]), "=r"(words[i + 2]), "=r"(words[i + 3])
                     : "r"(from + i * 4)
                     : "memory");
      }
      __syncwarp();
      release(empty());
      advance(slots);
      Order order;
      memcpy(&order, words, sizeof order);
      return order;
    }
  };

  // ---- loading: one warp, of which one thread asks for copies ----

  __device__ static void feed(const GroupedProduct& p, const CUtensorMap* map_a,
                              const CUtensorMap* map_b, Ring ring) {
    const bool leader = threadIdx.x % 32 == 0;
    if (leader) {
      hopper::prefetch_map(map_a);
      hopper::prefetch_map(map_b);
    }
    Walk walk(p);
    Mail mail{ring.base, 0};
    Order order{};
    for (int t = blockIdx.x; walk.find(t, order.tile); t += gridDim.x) {
      if (leader) {
        order.stage = ring.stage;
        order.parity = ring.parity;
        mail.send(order);
        load(order.tile, p, map_a, map_b, ring);
      }
      __syncwarp();
    }
    order.tile.group = -1;
    for (int i = 0; leader && i < kTeams; ++i) mail.send(order);
  }

  __device__ static void load(const GroupedTile& tile, const GroupedProduct& p,
                              const CUtensorMap* map_a, const CUtensorMap* map_b, Ring& ring) {
    const int boxes_a = tile.row_end - tile.row > 64 ? 2 : 1;
    const int boxes_b = min(kTileColumns, p.columns - tile.column + 63) / 64;
    for (int c = chunks(tile), k = tile.first; c > 0; --c, k += kChunk) {
      hopper::barrier_wait(ring.empty(), ring.parity ^ 1);
      const std::uint32_t full = ring.full();
      hopper::barrier_expect(full, (boxes_a + boxes_b) * hopper::kTileBytes);
      for (int i = 0; i < boxes_a; ++i) {
        const std::uint32_t to = ring.a() + i * hopper::kTileBytes;
        const int row = tile.row + 64 * i;
        if constexpr (kLinesA == hopper::Lines::inner) {
          hopper::copy_box(to, map_a, full, k, row, 0);
        } else {
          hopper::copy_box(to, map_a, full, row, k, 0);
        }
      }
      for (int i = 0; i < boxes_b; ++i) {
        const std::uint32_t to = ring.b() + i * hopper::kTileBytes;
        const int column = tile.column + 64 * i;
        if constexpr (kForm == Form::forward) {
          hopper::copy_box(to, map_b, full, k, column, tile.group);
        } else {
          hopper::copy_box(to, map_b, full, column, k, kForm == Form::input ? tile.group : 0);
        }
      }
      ring.advance();
    }
  }

  // ---- multiplying: a warpgroup ----

  // Overwrites contraction indices from `valid` in a stage with zeros; each is one line of 128
  // bytes in every box.
  __device__ static void mask(const Ring& ring, int valid) {
    const int lines = kChunk - valid;
    constexpr int kBoxes = kStageBytes / hopper::kTileBytes;
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
    return ring.base + kTurnsAt + group * 8;
  }
  // By a warp that has seen all chunks of its tile arrive.
  __device__ static void pass_turn(const Ring& ring) {
    if constexpr (!kShared) release(turn(ring, threadIdx.x / 128 ^ 1));
  }

  template <int kColumns, int kUsedParts>
  __device__ static void multiply(float (*sums)[kColumns / 2], int first_part,
                                  const GroupedTile& tile, Ring& ring) {
    std::uint32_t held = 0;  // the stage that products still read
    const auto finish = [&] {
      hopper::products_commit();
      hopper::products_wait<1>();
      if (held != 0) release(held);
      held = ring.empty();
      ring.advance();
    };
#pragma unroll
    for (int i = 0; i < kUsedParts * kColumns / 2; ++i)
      sums[i / (kColumns / 2)][i % (kColumns / 2)] = 0.0f;
    int left = chunks(tile);
#pragma unroll 1
    do {
      hopper::barrier_wait(ring.full(), ring.parity);
      if (left == 1) pass_turn(ring);
      if constexpr (kForm == Form::weight) {
        if (left == 1 && tile.depth % kChunk != 0) mask(ring, tile.depth % kChunk);
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
      finish();
    } while (--left > 0);
    hopper::products_wait<0>();
#pragma unroll
    for (int i = 0; i < kUsedParts; ++i) hopper::sums_changed<kColumns / 2>(sums[i]);
    release(held);
  }

  // ---- storing: each warp its 16 rows, through its part of shared memory ----

  // threadIdx.x, read where it stands: what depends on it is not computed before the products and
  // kept in registers that the sums need.
  __device__ static int late_thread() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
  }

  // Adds or writes 16 bytes of the result.
  __device__ static void store(const GroupedProduct& p, std::int64_t row, int column,
                               const uint4& bits) {
    Out* to = static_cast<Out*>(p.out) + row * p.columns + column;
    if constexpr (kForm == Form::weight) {
      const float4 v = make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y),
                                   __uint_as_float(bits.z), __uint_as_float(bits.w));
      if (p.add) {
        // Every element has one writer, so the sum does not depend on the order.
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y),
                     "f"(v.z), "f"(v.w)
                     : "memory");
      } else {
        __stcs(reinterpret_cast<float4*>(to), v);
      }
    } else {
      using Values = Pack<__nv_bfloat16, 8>;
      Values v;
      memcpy(&v, &bits, sizeof v);
      if (p.add) {
        const Values old = Values::load(to);
#pragma unroll
        for (int i = 0; i < 8; ++i) v.set(i, old[i] + v[i]);
      }
      v.store(to);
    }
  }

  // Puts 16 rows × 128 bytes of results, columns from `column` of the tile, into shared memory:
  // 16-byte piece c of row r at 128 r + 16 (c ^ swizzle(r)).
  __device__ static int swizzle(int row) { return kForm == Form::weight ? row % 4 * 2 : row % 8; }

  template <int kFirst>
  __device__ static void stage(const float* sums, int lane, std::uint32_t buffer) {
    if constexpr (kForm == Form::weight) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = lane / 4 + 8 * h;
          const int piece = 2 * j + lane % 4 / 2;
          const std::uint32_t to =
              buffer + row * 128 + ((piece ^ swizzle(row)) * 16) + lane % 2 * 8;
          const float* d = sums + kFirst / 2 + 4 * j + 2 * h;
          asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(d[0]), "f"(d[1])
                       : "memory");
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::uint32_t m[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* d = sums + kFirst / 2 + 8 * j + 2 * i;
          const __nv_bfloat162 pair = __floats2bfloat162_rn(d[0], d[1]);
          memcpy(&m[i], &pair, 4);
        }
        // Matrices 0 and 1 are rows 0..7 and 8..15 of 8 columns, 2 and 3 of the next 8.
        const int row = lane % 16;
        const int piece = 2 * j + lane / 16;
        const std::uint32_t to = buffer + row * 128 + (piece ^ swizzle(row)) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                     : "memory");
      }
    }
  }

  template <int kColumns, int kFirst = 0>
  __device__ static void store_rows(const float* sums, int row, const GroupedTile& tile,
                                    const GroupedProduct& p, int lane, std::uint32_t buffer) {
    if constexpr (kFirst < kColumns) {
      constexpr int kPiece = 16 / sizeof(Out);
      __syncwarp();
      stage<kFirst>(sums, lane, buffer);
      __syncwarp();
      const std::int64_t base =
          kForm == Form::weight ? static_cast<std::int64_t>(tile.group) * p.out_rows : 0;
      const int column = tile.column + kFirst + lane % 8 * kPiece;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = lane / 8 + 4 * i;
        uint4 bits;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
                     : "r"(buffer + r * 128 + (lane % 8 ^ swizzle(r)) * 16)
                     : "memory");
        if (row + r < tile.row_end && column < p.columns) store(p, base + row + r, column, bits);
      }
      store_rows<kColumns, kFirst + 8 * kPiece>(sums, row, tile, p, lane, buffer);
    }
  }

  template <int kColumns, int kUsedParts>
  __device__ static void tile_of(const GroupedTile& tile, const GroupedProduct& p, int first_part,
                                 Ring& ring) {
    float sums[kUsedParts][kColumns / 2];
    multiply<kColumns, kUsedParts>(sums, first_part, tile, ring);
    const int thread = late_thread();
    const std::uint32_t buffer = ring.base + kStages * kStageBytes + thread / 32 * kWarpBytes;
    const int warp_row = thread % 128 / 32 * 16;
#pragma unroll
    for (int i = 0; i < kUsedParts; ++i) {
      const int row = tile.row + (first_part + i) * 64 + warp_row;
      if (row < tile.row_end) store_rows<kColumns>(sums[i], row, tile, p, thread % 32, buffer);
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

  // A tile whose contraction is empty: zeros of this warpgroup's rows.
  __device__ static void store_zeros(const GroupedTile& tile, const GroupedProduct& p,
                                     int first_part) {
    if (p.add) return;
    constexpr int kPiece = 16 / sizeof(Out);
    const std::int64_t base =
        kForm == Form::weight ? static_cast<std::int64_t>(tile.group) * p.out_rows : 0;
    for (int i = threadIdx.x % 128; i < kParts * 64 * (kTileColumns / kPiece); i += 128) {
      const int row = tile.row + first_part * 64 + i / (kTileColumns / kPiece);
      const int column = tile.column + i % (kTileColumns / kPiece) * kPiece;
      if (row < tile.row_end && column < p.columns) {
        store(p, base + row, column, make_uint4(0, 0, 0, 0));
      }
    }
  }

  __device__ static void compute(const GroupedProduct& p, Ring ring) {
    const std::uint32_t group = threadIdx.x / 128;
    const int first_part = kShared ? group : 0;
    Mail mail{ring.base, kShared ? 0u : group};
    std::uint32_t turn_parity = group ^ 1;  // the first turn is warpgroup 0's
    while (true) {
      const Order order = mail.receive(kTeams);
      const GroupedTile& tile = order.tile;
      if (tile.group < 0) break;
      ring.stage = order.stage;
      ring.parity = order.parity;
      if constexpr (!kShared) {
        hopper::barrier_wait(turn(ring, group), turn_parity);
        turn_parity ^= 1;
      }
      if (tile.depth == 0) {
        pass_turn(ring);
        store_zeros(tile, p, first_part);
        continue;
      }
      if (kShared && tile.row + 64 * first_part >= tile.row_end) {
        // No rows here: the other warpgroup must not wait for this one.
        for (int c = chunks(tile); c > 0; --c) {
          hopper::barrier_wait(ring.full(), ring.parity);
          if (c == 1 && masked(tile) != 0) mask(ring, masked(tile));
          release(ring.empty());
          ring.advance();
        }
        continue;
      }
      const int columns = p.columns - tile.column;
      if (columns <= 64 && !kShared) {
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
    Ring ring{hopper::shared_address(memory)};
    if (threadIdx.x == 0) {
      if (ring.base % 1024 != 0) __trap();
      Ring at = ring;
      for (int i = 0; i < kStages; ++i, at.advance()) {
        hopper::barrier_init(at.full(), 1);
        hopper::barrier_init(at.empty(), kReaders);
      }
      Mail mail{ring.base, 0};
      for (int i = 0; i < kSlots; ++i, mail.advance(1)) {
        hopper::barrier_init(mail.full(), 1);
        hopper::barrier_init(mail.empty(), kReaders);
      }
      for (std::uint32_t group = 0; group < 2; ++group) hopper::barrier_init(turn(ring, group), 4);
      hopper::barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x >= 256) {
      hopper::give_registers<kLoadRegisters>();
      if (threadIdx.x >= 288) {
        zero_rest(p);
      } else {
        feed(p, map_a, map_b, ring);
      }
    } else {
      hopper::take_registers<kSumRegisters>();
      compute(p, ring);
    }
  }
};

template <Form kForm, int kTileColumns, bool kShared>
__global__ __launch_bounds__(384,
                             1) void grouped_kernel(const __grid_constant__ GroupedProduct p,
                                                    const __grid_constant__ CUtensorMap map_a,
                                                    const __grid_constant__ CUtensorMap map_b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  GroupedKernel<kForm, kTileColumns, kShared>::run(p, &map_a, &map_b);
#else
  __trap();  // chosen for devices of sm_90a code only
#endif
}

}  // namespace fulcrum::ops::cuda
