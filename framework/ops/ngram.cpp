#include "framework/ops/ngram.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "framework/core/pcg64.h"
#include "framework/core/primes.h"
#include "framework/ops/document.h"
#include "framework/ops/ngram_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kLayerStride = 10007;

// n mod p by a multiplication: with m = ⌊2⁶⁴ / p⌋, ⌊n·m / 2⁶⁴⌋ is the quotient or one less.
struct Modulus {
  std::uint64_t prime;
  std::uint64_t reciprocal;
  std::int64_t offset;

  std::int64_t row(std::uint64_t n) const {
    __extension__ using Wide = unsigned __int128;
    const auto quotient = static_cast<std::uint64_t>((Wide{n} * reciprocal) >> 64);
    const std::uint64_t rest = n - quotient * prime;
    return offset + static_cast<std::int64_t>(rest >= prime ? rest - prime : rest);
  }
};

std::vector<Modulus> moduli_of(const NgramHash& hash) {
  std::vector<Modulus> moduli;
  for (std::size_t i = 0; i < hash.primes.size(); ++i) {
    const auto prime = static_cast<std::uint64_t>(hash.primes[i]);
    // 2⁶⁴ / p and (2⁶⁴ − 1) / p have the same floor unless p is a power of two; one less is still
    // right for p = 2.
    moduli.push_back({prime, std::numeric_limits<std::uint64_t>::max() / prime, hash.offsets[i]});
  }
  return moduli;
}

void check_ids(const Tensor& ids, std::int64_t vocabulary) {
  const std::int32_t* id = ids.data<std::int32_t>();
  const std::int64_t n = ids.numel();
  std::int64_t bad = n;
#pragma omp simd reduction(min : bad)
  for (std::int64_t i = 0; i < n; ++i) {
    bad = std::min(bad, id[i] < 0 || id[i] >= vocabulary ? i : n);
  }
  FULCRUM_REQUIRE(bad == n, "ngram_rows: ids must lie in [0, {}); got {} at position {}",
                  vocabulary, id[bad], bad);
}

Tensor mapped(const Tensor& ids, const Tensor& map) {
  check_ids(ids, map.numel());
  Tensor out = Tensor::empty(ids.shape(), DType::i32);
  const std::int32_t* in = ids.data<std::int32_t>();
  const std::int32_t* to = map.data<std::int32_t>();
  for (std::int64_t i = 0; i < ids.numel(); ++i) out.data<std::int32_t>()[i] = to[in[i]];
  return out;
}

void hash_sequence(const std::int32_t* id, const std::int32_t* start, const NgramHash& hash,
                   const std::vector<Modulus>& moduli, std::int64_t pad, std::int64_t begin,
                   std::int64_t end, std::int64_t* out) {
  const std::int64_t largest = hash.orders.back();
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t first = start == nullptr ? 0 : start[t];
    const Modulus* modulus = moduli.data();
    std::uint64_t mix = 0;
    std::size_t order = 0;
    for (std::int64_t k = 0; k < largest; ++k) {
      const std::int64_t token = t - k >= first ? id[t - k] : pad;
      mix ^= static_cast<std::uint64_t>(token) * static_cast<std::uint64_t>(hash.multipliers[k]);
      if (hash.orders[order] != k + 1) continue;
      for (std::int64_t j = 0; j < hash.heads; ++j) *out++ = (modulus++)->row(mix);
      ++order;
    }
  }
}

}  // namespace

NgramHash make_ngram_hash(const NgramHashOptions& options, std::int64_t layer,
                          std::set<std::int64_t>& seen) {
  const auto& orders = options.orders;
  FULCRUM_REQUIRE(
      !orders.empty() && orders.front() >= 1 &&
          std::adjacent_find(orders.begin(), orders.end(), std::greater_equal<>()) == orders.end(),
      "ngram hash: orders must be ascending and at least 1; got [{}]", fmt::join(orders, ", "));
  FULCRUM_REQUIRE(options.heads >= 1, "ngram hash: at least one head; got {}", options.heads);
  const auto& rows = options.rows_per_head;
  FULCRUM_REQUIRE(
      rows.size() == 1 || rows.size() == orders.size(),
      "ngram hash: rows_per_head must have one value or one for each of {} orders; got {}",
      orders.size(), rows.size());
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t r : rows) {
    FULCRUM_REQUIRE(r >= 2 && r <= kMax / 1024,
                    "ngram hash: rows_per_head must be 2 to 2^53; got {}", r);
  }
  FULCRUM_REQUIRE(options.vocabulary >= 1, "ngram hash: the vocabulary must have an id; got {}",
                  options.vocabulary);
  FULCRUM_REQUIRE(layer >= 0 && options.seed >= 0 && options.seed <= kMax - kLayerStride * layer,
                  "ngram hash: seed and layer must not be negative; got {} and {}", options.seed,
                  layer);

  NgramHash hash;
  hash.orders = orders;
  hash.heads = options.heads;
  hash.vocabulary = options.vocabulary;

  const std::int64_t bound = std::max<std::int64_t>(1, kMax / options.vocabulary / 2);
  Pcg64 generator(static_cast<std::uint64_t>(options.seed + kLayerStride * layer));
  for (std::int64_t k = 0; k < orders.back(); ++k) {
    hash.multipliers.push_back(2 * generator.integer(bound) + 1);
  }

  hash.offsets.push_back(0);
  for (std::size_t n = 0; n < orders.size(); ++n) {
    std::int64_t candidate = rows[rows.size() == 1 ? 0 : n];
    for (std::int64_t j = 0; j < options.heads; ++j, ++candidate) {
      while (!is_prime(static_cast<std::uint64_t>(candidate)) || seen.contains(candidate))
        ++candidate;
      seen.insert(candidate);
      hash.primes.push_back(candidate);
      hash.offsets.push_back(hash.offsets.back() + candidate);
    }
  }
  return hash;
}

std::vector<NgramHash> make_ngram_hashes(const NgramHashOptions& options,
                                         const std::vector<std::int64_t>& layers) {
  std::set<std::int64_t> seen;
  std::vector<NgramHash> hashes;
  for (const std::int64_t layer : layers) hashes.push_back(make_ngram_hash(options, layer, seen));
  return hashes;
}

Tensor ngram_rows(const Tensor& raw_ids, const Tensor& document_start, const NgramHash& hash,
                  std::int64_t pad_id, const Tensor& id_map) {
  FULCRUM_REQUIRE(raw_ids.rank() == 2 && raw_ids.dtype() == DType::i32,
                  "ngram_rows: ids must be i32 [batch, seq]; got {} {}", raw_ids.dtype(),
                  raw_ids.shape());
  FULCRUM_REQUIRE(!id_map.defined() || (id_map.rank() == 1 && id_map.dtype() == DType::i32),
                  "ngram_rows: the map of ids must be i32 [vocabulary]; got {} {}", id_map.dtype(),
                  id_map.shape());
  FULCRUM_REQUIRE(pad_id >= 0 && pad_id < hash.vocabulary,
                  "ngram_rows: pad_id must lie in [0, {}); got {}", hash.vocabulary, pad_id);
  const std::int32_t* start =
      checked_document_start("ngram_rows", document_start, raw_ids.dim(0), raw_ids.dim(1));
  if constexpr (kBuiltWithCuda) {
    if (raw_ids.device().is_cuda()) {
      return cuda::ngram_rows(raw_ids, document_start, hash, pad_id, id_map);
    }
  }
  const Tensor ids = id_map.defined() ? mapped(raw_ids, id_map) : raw_ids;
  check_ids(ids, hash.vocabulary);
  const std::int32_t* id = ids.data<std::int32_t>();
  const std::int64_t seq = ids.dim(1);
  const std::int64_t columns = hash.columns();
  const std::vector<Modulus> moduli = moduli_of(hash);
  Tensor rows = Tensor::empty({ids.numel(), columns}, DType::i64);
  std::int64_t* out = rows.data<std::int64_t>();

  constexpr std::int64_t kBlock = 256;  // positions
  const std::int64_t blocks = (seq + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) if (ids.numel() > 2 * kBlock)
  for (std::int64_t item = 0; item < ids.dim(0) * blocks; ++item) {
    const std::int64_t sequence = item / blocks;
    const std::int64_t begin = item % blocks * kBlock;
    hash_sequence(id + sequence * seq, start == nullptr ? nullptr : start + sequence * seq, hash,
                  moduli, pad_id, begin, std::min(seq, begin + kBlock),
                  out + (sequence * seq + begin) * columns);
  }
  return rows;
}

}  // namespace fulcrum::ops
