#pragma once
// c (+)= aᵀ · b in f32, the product of weight gradients, by a kernel of our own. Both operands are
// stored with the summed dimension first, so that their panels are copies of whole rows, which no
// general product exploits. Internal to the operators; ops/gemm.h chooses it.

#include <cstdint>

namespace fulcrum::ops {

// Whether this processor runs it (AVX-512).
bool has_gemm_transposed();

// c [m, n] = aᵀ · b, or c += aᵀ · b with `add`; a [k, m], b [k, n], row-major, with the distances
// lda, ldb and ldc between stored rows; m, n and k above 0. Runs on all threads, or on the calling
// one alone inside an OpenMP parallel region; every element is summed in the same order on any
// number of them.
void gemm_transposed(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                     std::int64_t lda, const float* b, std::int64_t ldb, bool add, float* c,
                     std::int64_t ldc);

}  // namespace fulcrum::ops
