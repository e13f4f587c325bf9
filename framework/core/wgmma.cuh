#pragma once
// d [64, kColumns] += a [64, 16] · b [16, kColumns] by a warpgroup: bf16 operands in shared memory
// (hopper.cuh, operand), f32 sums in registers. Thread t of 128 holds, for each 8 columns from 8j,
// d[4j + 2h + i] at row 16 (t / 32) + (t % 32) / 4 + 8h and column 8j + 2 (t % 4) + i.
//
// Products run on their own until products_wait; until then the sums must not be touched.

#include "framework/core/hopper.cuh"

namespace fulcrum::hopper {

// Tells the compiler that the sums change here, so that it does not read them too early.
template <int kCount>
__device__ __forceinline__ void sums_changed(float* d) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i]));
}

#define FULCRUM_SUMS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FULCRUM_SUMS16(i) \
  FULCRUM_SUMS4(i), FULCRUM_SUMS4(i + 4), FULCRUM_SUMS4(i + 8), FULCRUM_SUMS4(i + 12)

template <Lines kA, Lines kB, int kColumns>
__device__ __forceinline__ void product(float* d, std::uint64_t a, std::uint64_t b) {
  constexpr int kOuterA = kA == Lines::outer;
  constexpr int kOuterB = kB == Lines::outer;
  if constexpr (kColumns == 64) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, 1, 1, 1, %34, %35;"
        : FULCRUM_SUMS16(0), FULCRUM_SUMS16(16)
        : "l"(a), "l"(b), "n"(kOuterA), "n"(kOuterB));
  } else if constexpr (kColumns == 128) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, %66, %67;"
        : FULCRUM_SUMS16(0), FULCRUM_SUMS16(16), FULCRUM_SUMS16(32), FULCRUM_SUMS16(48)
        : "l"(a), "l"(b), "n"(kOuterA), "n"(kOuterB));
  } else if constexpr (kColumns == 192) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
        "%96, %97, 1, 1, 1, %98, %99;"
        : FULCRUM_SUMS16(0), FULCRUM_SUMS16(16), FULCRUM_SUMS16(32), FULCRUM_SUMS16(48),
          FULCRUM_SUMS16(64), FULCRUM_SUMS16(80)
        : "l"(a), "l"(b), "n"(kOuterA), "n"(kOuterB));
  } else if constexpr (kColumns == 256) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
        "%127}, "
        "%128, %129, 1, 1, 1, %130, %131;"
        : FULCRUM_SUMS16(0), FULCRUM_SUMS16(16), FULCRUM_SUMS16(32), FULCRUM_SUMS16(48),
          FULCRUM_SUMS16(64), FULCRUM_SUMS16(80), FULCRUM_SUMS16(96), FULCRUM_SUMS16(112)
        : "l"(a), "l"(b), "n"(kOuterA), "n"(kOuterB));
  } else {
    static_assert(kColumns == 64, "products have 64, 128, 192 or 256 columns");
  }
}

#undef FULCRUM_SUMS16
#undef FULCRUM_SUMS4

}  // namespace fulcrum::hopper
