#include "models/language_model.h"

#include <algorithm>

#include "framework/core/region.h"
#include "framework/ops/cross_entropy.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/embedding.h"
#include "framework/ops/matmul.h"

namespace fulcrum::models {

LanguageModel::LanguageModel(const ModelConfig& config, ParameterStore& store,
                             const HashedVocabulary& vocabulary,
                             const parallel::Communicator& data_ranks)
    : config_(config) {
  if (config.hyper_connections != 1) {
    throw UserError(
        fmt::format("model.hyper_connections: {} branches can be planned and counted, but not "
                    "trained yet; allowed: 1",
                    config.hyper_connections));
  }
  embedding_ =
      &store.create("embedding.weight", ParameterKind::embedding, {config.vocabulary, config.width},
                    Initializer::normal(config.init_std));
  std::vector<ops::NgramHash> hashes;
  if (config.dse) hashes = make_hashes(*config.dse, vocabulary.size);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string name = fmt::format("blocks.{}", layer);
    std::unique_ptr<Memory> memory;
    if (config.dse) {
      const auto& layers = config.dse->layers;
      const auto it = std::find(layers.begin(), layers.end(), layer);
      if (it != layers.end()) {
        memory = std::make_unique<Memory>(store, name + ".memory", config,
                                          hashes[it - layers.begin()], vocabulary, data_ranks);
      }
    }
    blocks_.push_back(std::make_unique<Block>(store, name, config, layer, std::move(memory)));
    if (blocks_.back()->moe() != nullptr) mixtures_.push_back(blocks_.back()->moe());
  }
  norm_ = std::make_unique<RmsNorm>(store, "norm", config.width, config.norm_eps);
  if (!config.tie_embeddings) {
    head_ = &store.create("head.weight", ParameterKind::head, {config.vocabulary, config.width},
                          Initializer::normal(config.init_std));
  }
}

void LanguageModel::announce(const data::Batch& host) {
  for (const auto& block : blocks_) {
    if (block->memory() != nullptr) block->memory()->announce(host);
  }
}

Tensor LanguageModel::hidden(ForwardPass& pass) {
  const Tensor& ids = pass.batch.ids;
  for (const auto& block : blocks_) {
    if (block->memory() != nullptr) block->memory()->prepare(pass);
  }
  for (const auto& block : blocks_) {
    if (block->memory() != nullptr) block->memory()->prefetch();
  }
  Tensor h = ops::embedding(embedding_->value, ids.reshape({-1}))
                 .reshape({ids.dim(0), ids.dim(1), config_.width});
  for (const auto& block : blocks_) h = block->forward(h, pass);
  return (*norm_)(h).reshape({-1, config_.width});
}

Loss LanguageModel::loss(ForwardPass& pass, double z_loss) {
  const Tensor h = hidden(pass);
  const InRegion region(Region::vocabulary);
  const ops::CrossEntropy ce = ops::linear_cross_entropy(
      h, head(), pass.batch.targets.reshape({-1}), pass.token_weight, z_loss);
  Tensor total = ce.loss;
  for (const Tensor& auxiliary : pass.auxiliary) total = ops::add(total, auxiliary);
  return {total, ce.nll_sum};
}

void LanguageModel::finish_step() {
  for (const auto& block : blocks_) {
    if (block->memory() != nullptr) block->memory()->finish_step();
  }
}

Tensor LanguageModel::logits(ForwardPass& pass) { return ops::linear(hidden(pass), head()); }

}  // namespace fulcrum::models
