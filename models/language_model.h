#pragma once
// A decoder-only language model: embedding, blocks, norm, head.

#include <memory>
#include <vector>

#include "models/block.h"
#include "models/config.h"

namespace fulcrum::models {

struct Loss {
  Tensor total;  // [1]: cross-entropy, z-loss and auxiliary losses; this rank's share of the step's
                 // loss
  Tensor nll_sum;  // f64 [1], detached: negative log-likelihood in nats, summed over this rank's
                   // tokens
};

class LanguageModel {
 public:
  // Builds every parameter in store. vocabulary is used by memories only; data_ranks share their
  // tables. Throws UserError for what this build counts but cannot train (NSA, MLA,
  // hyper-connections).
  LanguageModel(const ModelConfig& config, ParameterStore& store,
                const HashedVocabulary& vocabulary, const parallel::Communicator& data_ranks);

  // Tells memories of a batch that comes later (models/memory.h).
  void announce(const data::Batch& host);
  // pass.batch.ids [batch, sequence] → normalised hidden states [batch · sequence, width]
  Tensor hidden(ForwardPass& pass);
  // Mean over the step's tokens (pass.token_weight each).
  Loss loss(ForwardPass& pass, double z_loss = 0.0);
  // [batch · sequence, vocabulary]
  Tensor logits(ForwardPass& pass);

  const ModelConfig& config() const { return config_; }
  Device device() const { return embedding_->value.device(); }
  // After the backward passes of a step: row gradients have reached the ranks that own the rows.
  // Every rank calls it.
  void finish_step();
  // The mixtures of experts, in layer order.
  const std::vector<MoeFeedForward*>& mixtures() const { return mixtures_; }

 private:
  const Tensor& head() const { return head_ != nullptr ? head_->value : embedding_->value; }

  ModelConfig config_;
  Parameter* embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<RmsNorm> norm_;
  Parameter* head_ = nullptr;  // null: tied to the embedding
  std::vector<MoeFeedForward*> mixtures_;
};

}  // namespace fulcrum::models
