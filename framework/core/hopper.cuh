#pragma once
// What Hopper (sm_90a) adds, one function an instruction: barriers in shared memory, bulk tensor
// copies that complete on them, matrix products of a warpgroup that read shared memory. Only for
// code inside #if defined(__CUDA_ARCH_FEAT_SM90_ALL). Source: PTX ISA 8.x, chapters mbarrier,
// cp.async.bulk.tensor and wgmma.

#include <cuda.h>

#include <cstdint>

namespace fulcrum::hopper {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// ---- barriers -------------------------------------------------------------------------------
// A barrier's phase ends when `arrivals` arrivals were counted and all expected bytes are there. A
// wait for parity p returns when the phase of that parity has ended; a fresh barrier is in phase 0,
// so a wait for parity 1 returns at once.

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine and to other blocks of the cluster.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and expects bytes that copies will bring.
__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// A wait that does not end, of half a second at least, is a mistake: the kernel ends with an error
// instead of hanging the device. What is counted are attempts, so that time in which another
// process has the device does not count.
//
// Parity tells a phase from the one before and the one after only: whoever waits for phase n must
// know that phase n - 1 has ended.
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\n.reg .b32 left;\nmov.u32 left, 0x2000000;\n"
      "AGAIN%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra ENDED%=;\n"
      "sub.u32 left, left, 1;\n"
      "setp.ne.u32 p, left, 0;\n"
      "@p bra AGAIN%=;\n"
      "trap;\n"
      "ENDED%=:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Barrier `id` (1..15) among `threads` threads of the block.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies ---------------------------------------------------------------------------------

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies the box at (x, y, z) into shared memory; its bytes count for the barrier.
__device__ __forceinline__ void copy_box(std::uint32_t target, const CUtensorMap* map,
                                         std::uint32_t barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(target),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Orders this thread's ordinary stores to shared memory before reads of the tensor cores and the
// copy engine that follow a barrier.
__device__ __forceinline__ void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- registers ------------------------------------------------------------------------------

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- products of a warpgroup ----------------------------------------------------------------

__device__ __forceinline__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending committed groups still run.
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// How tiles of 64 × 64 bf16 lie in shared memory: 64 lines of 128 bytes, swizzled in 16-byte pieces
// by the copy engine (CU_TENSOR_MAP_SWIZZLE_128B), each tile 8192 bytes, 1024-aligned. A line is 64
// consecutive elements of the contraction (`inner`) or of the rows and columns of the product
// (`outer`).
enum class Lines { inner, outer };
inline constexpr int kTileBytes = 8192;

// Describes an operand whose tiles follow each other along rows or columns of the product; its
// address lies in shared memory.
template <Lines kLines>
__device__ __forceinline__ std::uint64_t operand(std::uint32_t address) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t(1) << 62;
  constexpr std::uint64_t kGroupOf8Lines = std::uint64_t(1024 >> 4) << 32;
  // From one tile to the next; not used when lines are inner, whose groups of 8 lines all follow
  // at one distance.
  constexpr std::uint64_t kNextTile = std::uint64_t(kLines == Lines::outer ? kTileBytes >> 4 : 1)
                                      << 16;
  return kSwizzle128 | kGroupOf8Lines | kNextTile | (address >> 4);
}

// What to add for `bytes` further on, and for the next 16 contraction elements.
constexpr std::uint64_t operand_offset(std::uint32_t bytes) { return bytes >> 4; }
template <Lines kLines>
inline constexpr std::uint64_t kOperandStep = operand_offset(kLines == Lines::outer ? 16 * 128
                                                                                    : 16 * 2);

}  // namespace fulcrum::hopper
