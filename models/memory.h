#pragma once
// DSE: conditional memory of hashed n-grams (Engram, arXiv 2601.07372, sections 2.2 to 2.4).
//
//   e_t = rows of the tables that the n-grams ending at t hash to, concatenated          [d_mem]
//   α_t = sigmoid(ssqrt(⟨RMSNorm(h_t), RMSNorm(W_K e_t)⟩ / sqrt(d)));  v_t = α_t W_V e_t
//   Y   = SiLU(Conv(RMSNorm(v))) + v
//
// Addresses depend on token ids alone, so prepare() starts fetching rows from the ranks that own
// them before the forward pass. A GPU that holds the table alone reads it straight by all row ids
// instead: nothing then depends on how many different rows a batch has.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "framework/core/upload_queue.h"
#include "framework/nn/linear.h"
#include "framework/ops/ngram.h"
#include "framework/ops/table.h"
#include "models/config.h"
#include "models/forward_pass.h"
#include "parallel/row_exchange.h"

namespace fulcrum::models {

// Raw token id → the id that is hashed. Identity when the tokenizer is not compressed.
struct HashedVocabulary {
  Tensor map;             // i32 [vocabulary], on the CPU
  std::int64_t size = 0;  // number of different hashed ids
  std::int32_t pad = 0;   // hashed id of positions before the start
};

// The hashes of all memories, in the order of config.layers: primes are distinct over layers.
std::vector<ops::NgramHash> make_hashes(const DseConfig& config, std::int64_t hashed_vocabulary);

class Memory {
 public:
  Memory(ParameterStore& store, const std::string& name, const ModelConfig& config,
         const ops::NgramHash& hash, const HashedVocabulary& vocabulary,
         const parallel::Communicator& data_ranks);

  // For GPUs that share the table: hashes a batch on the host and asks for its rows, while the GPUs
  // compute something else. prepare() of the same batch then finds that done. Every rank calls it,
  // or none.
  void announce(const data::Batch& host);
  // Hashes the batch and asks for its rows. Every rank calls it, also with an empty batch.
  void prepare(const ForwardPass& pass);
  // After prepare() of all memories: the rows begin to arrive.
  void prefetch();
  // The memory vectors e_t [tokens, d_mem] of the batch that was prepared. Every rank calls it.
  Tensor read(DType dtype);
  // hidden [batch, sequence, width] and what read() gave → the update of the residual stream
  Tensor forward(const Tensor& hidden, const Tensor& memory, ForwardPass& pass);
  // After the backward passes of a step: the gradients of this rank's rows are complete. Every rank
  // calls it.
  void finish_step() { exchange_.finish(); }

 private:
  // A batch whose rows other ranks were asked for.
  struct Asked {
    Tensor ids;    // of the batch
    Tensor index;  // i64 [tokens, columns]: among the different rows, on the host
    parallel::RowRequest request;
  };

  // Boundaries of documents, where they count.
  Tensor document_start(const data::Batch& batch) const;
  // The rows of each token in the table, i64 [tokens, columns].
  Tensor hash(const data::Batch& batch) const;
  Asked ask(const data::Batch& host);

  DseConfig config_;
  double eps_;
  ops::NgramHash hash_;
  bool in_place_;                // reads the table straight
  HashedVocabulary vocabulary_;  // its map where batches are hashed
  Parameter* table_;
  parallel::RowExchange exchange_;
  Linear key_;
  Linear value_;
  Parameter* key_bias_ = nullptr;
  Parameter* value_bias_ = nullptr;
  RmsNorm hidden_norm_;
  RmsNorm key_norm_;
  std::optional<RmsNorm> convolution_norm_;  // with a convolution
  Parameter* convolution_ = nullptr;
  // Of the batch at hand: where each token's rows lie in the table, or, when they are fetched,
  // among the different ones.
  Tensor index_;  // i64 [tokens, columns]
  parallel::RowRequest request_;
  std::vector<Asked> announced_;
  UploadQueue upload_;
};

}  // namespace fulcrum::models
