#include "models/budget.h"

#include <algorithm>

namespace fulcrum::models {
namespace {

// Elements of a tensor that one token uses.
std::int64_t active_elements(const CountedTensor& tensor, const ModelConfig& model) {
  switch (tensor.part) {
    case Part::embedding:
      return 0;
    case Part::routed_experts:
      return tensor.numel() / model.moe.routed() * model.moe.active();
    case Part::memory_table:
      return model.dse->width;
    default:
      return tensor.numel();
  }
}

bool is_matrix(ParameterKind kind) {
  return kind == ParameterKind::matrix || kind == ParameterKind::router ||
         kind == ParameterKind::expert || kind == ParameterKind::head;
}

// Sums over the positions of a sequence, exact.
struct NsaKeys {
  double compressed = 0, selected = 0, window = 0;
};

NsaKeys mean_nsa_keys(const AttentionConfig::Nsa& nsa, std::int64_t length) {
  NsaKeys keys;
  for (std::int64_t t = 0; t < length; ++t) {
    if (t + 1 >= nsa.compression_block)
      keys.compressed +=
          static_cast<double>((t + 1 - nsa.compression_block) / nsa.compression_stride + 1);
    // The token's own block is cut behind it.
    const std::int64_t own = t % nsa.selection_block + 1;
    const std::int64_t others = std::min(t / nsa.selection_block, nsa.selected_blocks - 1);
    keys.selected += static_cast<double>(others * nsa.selection_block + own);
    keys.window += static_cast<double>(std::min(t + 1, nsa.window));
  }
  const auto n = static_cast<double>(length);
  return {keys.compressed / n, keys.selected / n, keys.window / n};
}

double attention_flops(const AttentionConfig& a, std::int64_t length) {
  const auto heads = static_cast<double>(a.heads);
  auto key_dim = static_cast<double>(a.head_dim);
  auto value_dim = key_dim;
  if (a.kind == AttentionKind::nsa) {
    value_dim = static_cast<double>(a.nsa.value_dim);
    const NsaKeys keys = mean_nsa_keys(a.nsa, length);
    return 6 * heads * (key_dim + value_dim) * (keys.compressed + keys.selected + keys.window) +
           2 * heads * key_dim * keys.compressed;
  }
  if (a.kind == AttentionKind::mla) {
    key_dim += static_cast<double>(a.mla.rope_dim);
    value_dim = static_cast<double>(a.mla.value_dim);
  }
  return 6 * heads * (key_dim + value_dim) * (static_cast<double>(length) + 1) / 2;
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& model) {
  ParameterCount count;
  for (const auto& tensor : list_parameters(model)) {
    const std::int64_t n = tensor.numel();
    count.total += n;
    count.active += active_elements(tensor, model);
    switch (tensor.part) {
      case Part::head:
        count.head += n;
        [[fallthrough]];
      case Part::embedding:
        count.embedding += n;
        break;
      case Part::routed_experts:
        count.routed_experts += n;
        [[fallthrough]];
      case Part::shared_experts:
        count.experts += n;
        break;
      case Part::memory_table:
        count.tables += n;
        [[fallthrough]];
      case Part::memory_projection:
        count.memory += n;
        break;
      default:
        count.other += n;
    }
  }
  if (model.tie_embeddings) {
    count.head = count.embedding;
    count.active += count.head;
  }
  return count;
}

double flops_per_token(const ModelConfig& model, std::int64_t sequence_length) {
  double matrices = 0;
  for (const auto& tensor : list_parameters(model)) {
    if (!is_matrix(tensor.kind)) continue;
    auto used = static_cast<double>(active_elements(tensor, model));
    if (tensor.name.find(".attention.compression.") != std::string::npos) {
      used *= static_cast<double>(model.attention.kv_heads) /
              static_cast<double>(model.attention.nsa.compression_stride);
    }
    matrices += used;
  }
  if (model.tie_embeddings) matrices += static_cast<double>(model.vocabulary * model.width);
  return 6 * matrices +
         static_cast<double>(model.layers) * attention_flops(model.attention, sequence_length);
}

}  // namespace fulcrum::models
