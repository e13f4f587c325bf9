#include "framework/ops/gemm_bf16.h"

#include <algorithm>
#include <bit>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef FULCRUM_HAVE_ONEDNN
#include <omp.h>

#include <compare>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace fulcrum::ops {

void round_row(const float* source, std::int64_t n, float scale, BFloat16* rounded) {
  auto* bits = reinterpret_cast<std::uint16_t*>(rounded);
  std::int64_t first = 0;
#ifdef __AVX512BF16__
  // Three times the speed of what the compiler makes of the loop below.
  const __m512 factor = _mm512_set1_ps(scale);
  for (; first + 16 <= n; first += 16) {
    const __m256bh word =
        _mm512_cvtneps_pbh(_mm512_mul_ps(factor, _mm512_loadu_ps(source + first)));
    std::memcpy(bits + first, &word, sizeof word);
  }
#endif
#pragma omp simd
  for (std::int64_t i = first; i < n; ++i) {
    const auto u = std::bit_cast<std::uint32_t>(scale * source[i]);
    const std::uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const std::uint32_t nan = (u >> 16) | 0x0040u;
    bits[i] = static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : nearest);
  }
}

void round_rows(const float* source, std::int64_t ld, float scale, const Tensor& rounded) {
  const std::int64_t rows = rounded.dim(0);
  const std::int64_t width = rounded.dim(1);
  BFloat16* target = rounded.data<BFloat16>();
#pragma omp parallel for schedule(static) if (rows * width > 16384)
  for (std::int64_t r = 0; r < rows; ++r)
    round_row(source + r * ld, width, scale, target + r * width);
}

#ifndef FULCRUM_HAVE_ONEDNN

void require_bf16() {
  throw UserError(
      "matmul precision bf16: this build has no oneDNN; install its development package "
      "(libdnnl-dev) and build again, or use "
      "f32");
}

void gemm_bf16(bool, bool, std::int64_t, std::int64_t, std::int64_t, const BFloat16*, std::int64_t,
               const BFloat16*, std::int64_t, float, float*, std::int64_t) {
  require_bf16();
}

#else

namespace {

using Dims = dnnl::memory::dims;
using DataType = dnnl::memory::data_type;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

struct Product {
  dnnl::memory::desc a, b, c, scratch;
  dnnl::matmul matmul;
};

struct Key {
  bool ta, tb;
  std::int64_t m, n, k, lda, ldb, ldc;
  float beta;
  int threads;
  auto operator<=>(const Key&) const = default;
};

Product build(const Key& key) {
  Product p;
  p.a = {{key.m, key.k}, DataType::bf16, key.ta ? Dims{1, key.lda} : Dims{key.lda, 1}};
  p.b = {{key.k, key.n}, DataType::bf16, key.tb ? Dims{1, key.ldb} : Dims{key.ldb, 1}};
  p.c = {{key.m, key.n}, DataType::f32, Dims{key.ldc, 1}};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.beta != 0.0f) {
    dnnl::post_ops sum;
    sum.append_sum(key.beta);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine(), p.a, p.b, p.c, attributes);
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(p.a, p.b, p.c), attributes,
                                                 engine());
#endif
  p.scratch = description.scratchpad_desc();
  p.matmul = dnnl::matmul(description);
  return p;
}

// Building a primitive takes half a millisecond, so each thread keeps those it has met. A primitive
// divides its work by the number of threads at the time it is built; inside a parallel region that
// must be one.
const Product& product(Key key) {
  constexpr std::size_t kMost = 4096;
  thread_local std::map<Key, Product> known;
  key.threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  if (known.size() >= kMost) known.clear();
  const int threads = omp_get_max_threads();
  omp_set_num_threads(key.threads);
  Product built = build(key);
  omp_set_num_threads(threads);
  return known.emplace(key, std::move(built)).first->second;
}

}  // namespace

void require_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  if ((isa & needed) != needed) {
    throw UserError("matmul precision bf16: this processor has no bf16 instructions; use f32");
  }
}

void gemm_bf16(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const BFloat16* a,
               std::int64_t lda, const BFloat16* b, std::int64_t ldb, float beta, float* c,
               std::int64_t ldc) {
  const Product& p = product({ta, tb, m, n, k, lda, ldb, ldc, beta, 0});
  const auto memory = [](const dnnl::memory::desc& description, const void* data) {
    return dnnl::memory(description, engine(), const_cast<void*>(data));
  };
  const auto scratch = allocate(p.scratch.get_size());
  thread_local dnnl::stream stream(engine());
  p.matmul.execute(stream, {{DNNL_ARG_SRC, memory(p.a, a)},
                            {DNNL_ARG_WEIGHTS, memory(p.b, b)},
                            {DNNL_ARG_DST, memory(p.c, c)},
                            {DNNL_ARG_SCRATCHPAD, memory(p.scratch, scratch->data)}});
  stream.wait();
}

#endif

}  // namespace fulcrum::ops
