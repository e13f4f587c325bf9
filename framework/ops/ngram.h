#pragma once
// Addresses of n-gram rows: the multiplicative-XOR hash of a DSE memory (arXiv 2601.07372
// section 2.2; the arithmetic is that of its published demonstration code, bit for bit).
//
//   For a position t with compressed token ids x and multipliers a of the layer:
//     mix_n(t) = x_t·a_0 ⊕ x_{t−1}·a_1 ⊕ … ⊕ x_{t−n+1}·a_{n−1}
//     row of head j of order n = mix_n(t) mod p_{n,j}
//
// Each order and head has a table of its own with a prime number p of rows; heads of a layer differ
// only by their prime. The tables of a layer lie one after another in one, orders outermost, and a
// row id counts in that. Products stay below 2⁶³, since a_k < (2⁶³ − 1) / |V'|.

#include <cstdint>
#include <set>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct NgramHash {
  std::vector<std::int64_t> orders;       // n of the n-grams, ascending
  std::int64_t heads = 0;                 // of each order
  std::int64_t vocabulary = 0;            // |V'|: compressed ids lie in [0, vocabulary)
  std::vector<std::int64_t> multipliers;  // [largest order], odd
  std::vector<std::int64_t> primes;       // [orders · heads], orders outermost
  std::vector<std::int64_t>
      offsets;  // [orders · heads + 1]: first row of each head; the last is rows()

  std::int64_t rows() const { return offsets.back(); }
  std::int64_t columns() const { return static_cast<std::int64_t>(primes.size()); }
};

struct NgramHashOptions {
  std::vector<std::int64_t> orders = {2, 3};  // ascending, at least 1
  std::int64_t heads = 8;                     // of each order
  std::vector<std::int64_t> rows_per_head;    // one value, or one for each order; at least 2
  std::int64_t vocabulary = 0;                // compressed
  std::int64_t seed = 0;
};

// The hash of one layer. Multipliers are 2r + 1 with r drawn by NumPy's default_rng(seed +
// 10007·layer) below ⌊⌊(2⁶³ − 1) / |V'|⌋ / 2⌋. Primes are, for each order, the next ones from
// rows_per_head upwards that are not in `seen`, to which they are added: `seen` goes from layer to
// layer of a model, in ascending order of layers, and starts empty.
NgramHash make_ngram_hash(const NgramHashOptions& options, std::int64_t layer,
                          std::set<std::int64_t>& seen);

// The hashes of all memory layers of a model, in the order given.
std::vector<NgramHash> make_ngram_hashes(const NgramHashOptions& options,
                                         const std::vector<std::int64_t>& layers);

// Row ids i64 [batch·seq, orders·heads] in the layer's concatenated table, from ids i32 [batch,
// seq]: compressed ones, or raw ones when id_map i32 [raw vocabulary] is given, which holds the
// compressed id of each. Positions before the start of the sequence, or of the document when
// document_start is given, count as pad_id (compressed). document_start i32 [batch, seq] holds for
// every position the index, within its sequence, of the first position of its document. Throws
// ArgumentError for an id outside the vocabulary and for a start outside [0, position], on the CPU.
Tensor ngram_rows(const Tensor& ids, const Tensor& document_start, const NgramHash& hash,
                  std::int64_t pad_id, const Tensor& id_map = {});

}  // namespace fulcrum::ops
