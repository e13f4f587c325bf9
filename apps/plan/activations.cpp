#include "apps/plan/activations.h"

#include <algorithm>

#include "framework/ops/cross_entropy.h"

namespace fulcrum::apps {
namespace {

using models::AttentionKind;

constexpr std::int64_t kIndex = 8;   // bytes of a row id or a slot
constexpr std::int64_t kExpert = 4;  // of an expert's number

// Adds up tensors of a micro-batch.
class Sum {
 public:
  Sum(std::int64_t tokens, const ElementBytes& bytes) : tokens_(tokens), bytes_(bytes) {}

  // Tensors of `width` values a token.
  void tensor(std::int64_t width, std::int64_t element) {
    if (width > 0) total_ += bytes_.pooled(tokens_ * width * element);
  }
  void activation(std::int64_t width) { tensor(width, bytes_.activation); }
  void statistic(std::int64_t width) { tensor(width, bytes_.statistic); }
  // An input of a product: as the product reads it, and as it is when something else keeps it too.
  void operand(std::int64_t width, bool kept_too) {
    if (kept_too) activation(width);
    if (!kept_too || bytes_.operand != bytes_.activation) tensor(width, bytes_.operand);
  }
  // One that selective recompute drops, unless it is a copy of the product's own.
  void droppable(std::int64_t width, bool kept_too, Recompute recompute) {
    if (recompute != Recompute::selective) return operand(width, kept_too);
    if (bytes_.operand != bytes_.activation) tensor(width, bytes_.operand);
  }

  std::int64_t total() const { return total_; }

 private:
  std::int64_t tokens_;
  const ElementBytes& bytes_;
  std::int64_t total_ = 0;
};

std::int64_t attention_values(const models::AttentionConfig& a) {
  switch (a.kind) {
    case AttentionKind::full:
      break;
    case AttentionKind::mla:
      return a.mla.query_rank + a.mla.kv_rank + a.mla.rope_dim +
             2 * a.heads * (a.head_dim + a.mla.rope_dim + a.mla.value_dim) + a.heads;
    case AttentionKind::nsa:
      return a.heads * a.head_dim + 3 * a.kv_heads * (a.head_dim + a.nsa.value_dim) +
             3 * a.heads * (a.nsa.value_dim + 2);
  }
  return 0;
}

void add_attention(const models::AttentionConfig& a, Sum& kept) {
  if (a.kind != AttentionKind::full) return kept.activation(attention_values(a));
  kept.activation(a.heads * a.head_dim);
  kept.activation(a.kv_heads * a.head_dim);
  kept.activation(a.kv_heads * a.head_dim);
  kept.operand(a.heads * a.head_dim, /*kept_too=*/true);
  kept.statistic(a.heads);
}

void add_experts(const models::ModelConfig& model, Recompute recompute, Sum& kept) {
  const auto& moe = model.moe;
  const auto& balance = moe.balance;
  const std::int64_t k = moe.active();
  // The router reads its input in full precision.
  kept.droppable(model.width, /*kept_too=*/true, recompute);
  kept.statistic(moe.routed());
  if (balance.expert_loss > 0 || balance.device_loss > 0 || balance.communication_loss > 0)
    kept.statistic(moe.routed());
  if (balance.z_loss > 0) kept.statistic(moe.routed());
  kept.statistic(k);
  kept.tensor(k, kExpert);
  kept.tensor(k, kIndex);  // slot of a row
  kept.tensor(k, kIndex);  // row of a slot
  kept.droppable(k * model.width, /*kept_too=*/false, recompute);
  kept.activation(k * 2 * moe.width());
  kept.droppable(k * moe.width(), /*kept_too=*/false, recompute);
  const std::int64_t shared = moe.shared_experts * moe.width();
  kept.activation(2 * shared);
  kept.droppable(shared, /*kept_too=*/false, recompute);
}

void add_memory(const models::ModelConfig& model, Sum& kept) {
  const auto& dse = *model.dse;
  const std::int64_t d = model.width * model.hyper_connections;
  kept.tensor(static_cast<std::int64_t>(dse.orders.size()) * dse.heads, kIndex);
  kept.operand(dse.width, /*kept_too=*/false);
  for (int i = 0; i < 4; ++i) kept.activation(d);
  kept.statistic(3);
  kept.statistic(1);
}

bool has_memory(const models::ModelConfig& model, std::int64_t layer) {
  return model.dse && std::count(model.dse->layers.begin(), model.dse->layers.end(), layer) > 0;
}

// What a block keeps from forward to backward, but for the feed-forward.
void add_attention_half(const models::ModelConfig& model, std::int64_t layer, Recompute recompute,
                        Sum& kept) {
  const std::int64_t d = model.width;
  kept.activation(d);
  kept.droppable(d, /*kept_too=*/false, recompute);
  kept.statistic(1);
  add_attention(model.attention, kept);
  kept.activation(d);
  kept.statistic(1);
  if (model.hyper_connections > 1) kept.activation(2 * model.hyper_connections * d);
  if (has_memory(model, layer)) add_memory(model, kept);
}

}  // namespace

BlockMemory block_memory(const models::ModelConfig& model, std::int64_t layer, std::int64_t tokens,
                         std::int64_t scores, const ElementBytes& bytes, Recompute recompute) {
  const std::int64_t d = model.width;
  const auto& moe = model.moe;
  const auto& a = model.attention;
  Sum kept(tokens, bytes);
  add_attention_half(model, layer, recompute, kept);

  // What selective recompute brings back for a moment, unless products kept their own.
  const std::int64_t back = recompute == Recompute::selective && bytes.operand == bytes.activation;
  Sum feed_forward(tokens, bytes);
  Sum backward(tokens, bytes);
  Sum validation(tokens, bytes);
  for (int i = 0; i < 4; ++i) validation.activation(d);  // input, update, sum, normed
  backward.activation((1 + back) * d);
  if (moe.experts > 0 && layer >= moe.leading_dense) {
    const std::int64_t k = moe.active();
    const std::int64_t w = moe.width();
    add_experts(model, recompute, feed_forward);
    if (moe.shared_experts > 0) backward.activation(d);
    // gradients around the second product, or around the activation, whose result is gone by then,
    // or around the first, whose result is gone too
    backward.activation(k * (back ? std::max({2 * w + d, 3 * w, 2 * d}) : w + std::max(d, w)));
    validation.activation(2 * k * w);
    validation.operand(k * w, /*kept_too=*/true);
    validation.activation(k * d);
  } else {
    feed_forward.droppable(d, /*kept_too=*/false, recompute);
    feed_forward.activation(2 * model.ffn_width);
    feed_forward.droppable(model.ffn_width, /*kept_too=*/false, recompute);
    backward.activation((2 + back) * model.ffn_width);
    validation.activation(2 * model.ffn_width);
    validation.operand(model.ffn_width, /*kept_too=*/true);
    validation.activation(d);
  }
  // Attention's turn comes when the feed-forward has let go of its own.
  Sum attention(tokens, bytes);
  attention.activation((1 + back) * d);
  attention.activation((2 * a.heads + 2 * a.kv_heads) * a.head_dim);
  const BlockMemory block{
      kept.total() + feed_forward.total(), validation.total(),
      std::max(backward.total(), attention.total() + scores - feed_forward.total())};
  if (recompute != Recompute::full) return block;

  Sum inputs(tokens, bytes);
  inputs.activation(d);
  if (has_memory(model, layer)) {
    inputs.tensor(static_cast<std::int64_t>(model.dse->orders.size()) * model.dse->heads, kIndex);
    inputs.activation(model.dse->width);
  }
  Sum output(tokens, bytes);  // of the second run
  output.activation(d);
  return {inputs.total(), block.validation,
          block.kept - inputs.total() + block.backward + output.total()};
}

LossMemory loss_memory(const models::ModelConfig& model, std::int64_t tokens, bool accumulates,
                       const ElementBytes& bytes) {
  const std::int64_t d = model.width;
  const ops::LogitsChunk chunk =
      ops::cross_entropy_chunk(tokens, model.vocabulary, bytes.logit, bytes.device);
  const std::int64_t logits = chunk.tokens * chunk.columns;
  Sum hidden(tokens, bytes);
  hidden.activation(d);
  hidden.statistic(1);
  hidden.operand(d, /*kept_too=*/true);
  std::int64_t shared = hidden.total() + bytes.pooled(logits * bytes.logit);
  if (bytes.operand != bytes.matrix) shared += bytes.pooled(model.vocabulary * d * bytes.operand);

  Sum gradient(tokens, bytes);
  gradient.activation(d);
  std::int64_t training = shared + gradient.total();
  if (accumulates) training += bytes.pooled(model.vocabulary * d * bytes.gradient);
  if (bytes.operand != bytes.logit) training += bytes.pooled(logits * bytes.operand);
  return {training, shared};
}

}  // namespace fulcrum::apps
