#pragma once
// Shared memory of a grouped product on Hopper, and what goes through it from the warp that loads
// to the warps that multiply: chunks of operands through a ring of stages, tiles through mail
// slots.
//
// Every stage and slot has two barriers. `full` ends a phase when it was filled, `empty` when all
// readers have let go of it; use u of a stage is phase u of both. The writer waits for the end of
// phase u - 1 of empty, readers wait for the end of phase u of full. Parity is enough to tell it:
//  - the writer of use u has itself seen phase u - 2 of empty end, and u cannot end before it;
//  - a reader of use u has seen phase u - 1 of full end, by reading it or, where two warpgroups
//    read by turns, by waiting for a turn that the other passes on only after its last chunk has
//    come; phase u + 1 cannot end before this reader lets go of use u.
// Slots are read in order by the same warps always.

#include "framework/core/hopper.cuh"
#include "framework/ops/grouped_matmul_tiles.cuh"

namespace fulcrum::ops::cuda {

// How the warpgroups that multiply divide tiles: both work on each, 64 rows each, or each has every
// second one.
enum class Teams { shared, own };

template <Form kForm_, class Out_, int kTileColumns_, Teams kTeams_>
struct GroupedLayout {
  static constexpr Form kForm = kForm_;
  using Out = Out_;
  static constexpr bool kShared = kTeams_ == Teams::shared;
  // Operands whose rows are not their contraction index have it along their lines.
  static constexpr hopper::Lines kLinesA =
      kForm == Form::weight ? hopper::Lines::outer : hopper::Lines::inner;
  static constexpr hopper::Lines kLinesB =
      kForm == Form::forward ? hopper::Lines::inner : hopper::Lines::outer;
  static constexpr int kTileRows = 128;
  static constexpr int kTileColumns = kTileColumns_;
  static constexpr int kThreads = 384;  // two warpgroups that multiply, one that loads
  static constexpr int kChunk = 64;     // contraction elements of a stage
  static constexpr int kBytesA = kTileRows / 64 * hopper::kTileBytes;
  static constexpr int kBytesB = kTileColumns / 64 * hopper::kTileBytes;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kWarpBytes = 2048;  // of results on their way to memory
  static constexpr int kStoreBytes = 8 * kWarpBytes;
  static constexpr int kSlots = 4;
  static constexpr int kStages = (227 * 1024 - kStoreBytes - 512) / kStageBytes;
  // Offsets in shared memory: stages first.
  static constexpr int kStoreAt = kStages * kStageBytes;
  static constexpr int kSlotsAt = kStoreAt + kStoreBytes;
  static constexpr int kBarriersAt = kSlotsAt + kSlots * 32;
  static constexpr int kTurnsAt = kBarriersAt + 2 * (kStages + kSlots) * 8;
  static constexpr int kSharedBytes = kTurnsAt + 2 * 8;
  static constexpr int kTeams = kShared ? 1 : 2;  // of warps that work on one tile
  static constexpr int kReaders = 8 / kTeams;     // warps
  // Registers of a thread that loads and of one that multiplies; 384 threads have 168 each at
  // first.
  static constexpr int kLoadRegisters = kTileColumns == 192 ? 40 : 72;
  static constexpr int kSumRegisters = kTileColumns == 192 ? 232 : 216;

  using Walk = GroupedTileWalk<kForm, kTileRows, kTileColumns, /*kLongestFirst=*/true>;

  __device__ static int chunks(const GroupedTile& tile) {
    return (tile.depth + kChunk - 1) / kChunk;
  }
};

// Position in the ring of stages.
template <class L>
struct GroupedRing {
  std::uint32_t base;  // of shared memory
  std::uint32_t stage = 0, parity = 0;

  __device__ std::uint32_t a() const { return base + stage * L::kStageBytes; }
  __device__ std::uint32_t b() const { return a() + L::kBytesA; }
  __device__ std::uint32_t full() const { return base + L::kBarriersAt + stage * 8; }
  __device__ std::uint32_t empty() const { return full() + L::kStages * 8; }
  __device__ void advance() {
    if (++stage == L::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ void init() const {
    GroupedRing at = *this;
    for (int i = 0; i < L::kStages; ++i, at.advance()) {
      hopper::barrier_init(at.full(), 1);
      hopper::barrier_init(at.empty(), L::kReaders);
    }
  }
  // By a warp that does not need a stage any longer.
  __device__ static void release(std::uint32_t empty) {
    if (threadIdx.x % 32 == 0) hopper::barrier_arrive(empty);
  }
};

// A tile, and where in the ring its first chunk is; group is negative behind the last tile.
struct GroupedOrder {
  GroupedTile tile;
  std::uint32_t stage, parity;
};
static_assert(sizeof(GroupedOrder) == 32);

// Position among the slots.
template <class L>
struct GroupedMail {
  std::uint32_t base;  // of shared memory
  std::uint32_t slot, parity = 0;

  __device__ std::uint32_t full() const {
    return base + L::kBarriersAt + (2 * L::kStages + slot) * 8;
  }
  __device__ std::uint32_t empty() const { return full() + L::kSlots * 8; }
  __device__ void advance(int slots) {
    slot += slots;
    if (slot >= L::kSlots) {
      slot -= L::kSlots;
      parity ^= 1;
    }
  }
  __device__ void init() const {
    GroupedMail at = *this;
    for (int i = 0; i < L::kSlots; ++i, at.advance(1)) {
      hopper::barrier_init(at.full(), 1);
      hopper::barrier_init(at.empty(), 32 * L::kReaders);
    }
  }
  __device__ void send(const GroupedOrder& order) {
    hopper::barrier_wait(empty(), parity ^ 1);
    int words[8];
    memcpy(words, &order, sizeof order);
    const std::uint32_t to = base + L::kSlotsAt + slot * 32;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + i * 4), "r"(words[i]),
                   "r"(words[i + 1]), "r"(words[i + 2]), "r"(words[i + 3])
                   : "memory");
    }
    hopper::barrier_arrive(full());
    advance(1);
  }
  // By all lanes of a warp; takes this slot and goes on by `slots`. Every lane tells that it has
  // read.
  __device__ GroupedOrder receive(int slots) {
    hopper::barrier_wait(full(), parity);
    int words[8];
    const std::uint32_t from = base + L::kSlotsAt + slot * 32;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(words[i]), "=r"(words[i + 1]), "=r"(words[i + 2]), "=r"(words[i + 3])
                   : "r"(from + i * 4)
                   : "memory");
    }
    hopper::barrier_arrive(empty());
    advance(slots);
    GroupedOrder order;
    memcpy(&order, words, sizeof order);
    return order;
  }
};

}  // namespace fulcrum::ops::cuda
