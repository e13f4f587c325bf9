#pragma once
// Products of bf16 matrices with f32 accumulation and f32 results, through oneDNN. Internal to
// ops/gemm.

#include <bit>
#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// The bits of BFloat16(value), without branches, so that loops vectorise.
inline std::uint16_t bf16_bits(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (u >> 16) | 0x0040u;
  return static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// Throws UserError when the build has no oneDNN or the processor no bf16 instructions.
void require_bf16();

// rounded [rows, width] bf16 = scale · source, whose rows are ld apart; to nearest even.
void round_rows(const float* source, std::int64_t ld, float scale, const Tensor& rounded);

// c = op(a) · op(b), or c += when add is set; arguments as in gemm. Transposed operands are read in
// place. Inside an OpenMP parallel region it runs on the calling thread.
void gemm_bf16(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const BFloat16* a,
               std::int64_t lda, const BFloat16* b, std::int64_t ldb, bool add, float* c,
               std::int64_t ldc);

}  // namespace fulcrum::ops
