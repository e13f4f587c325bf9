#include "models/budget.h"

#include <fmt/format.h>

#include <algorithm>

#include "framework/core/error.h"
#include "framework/ops/ngram.h"
#include "models/budget_solver.h"

namespace fulcrum::models {
namespace {

constexpr double kMaxElements = 1e15;  // of one tensor; sums over a model stay below 2^63

class Lister {
 public:
  explicit Lister(const ModelConfig& model) : model_(model), d_(model.width) {}

  std::vector<CountedTensor> list() {
    add("embedding.weight", ParameterKind::embedding, Part::embedding, {model_.vocabulary, d_});
    const auto rows = model_.dse ? table_rows(*model_.dse) : std::vector<std::int64_t>();
    for (std::int64_t i = 0; i < model_.layers; ++i) {
      block_ = fmt::format("blocks.{}.", i);
      if (model_.dse) {
        const auto& layers = model_.dse->layers;
        const auto found = std::find(layers.begin(), layers.end(), i);
        if (found != layers.end()) memory(rows[static_cast<std::size_t>(found - layers.begin())]);
      }
      norm("attention_norm");
      attention();
      norm("feed_forward_norm");
      if (model_.moe.experts > 0 && i >= model_.moe.leading_dense) {
        experts();
      } else {
        gated("feed_forward", Part::dense_feed_forward, model_.ffn_width);
      }
    }
    block_.clear();
    norm("norm");
    if (!model_.tie_embeddings)
      add("head.weight", ParameterKind::head, Part::head, {model_.vocabulary, d_});
    return std::move(tensors_);
  }

 private:
  void add(const std::string& name, ParameterKind kind, Part part, const Shape& shape) {
    double elements = 1;
    for (const std::int64_t size : shape) elements *= static_cast<double>(size);
    if (elements > kMaxElements)
      throw UserError(
          fmt::format("model: {}{} would have the shape {}; allowed: at most {:.0e} elements",
                      block_, name, shape, kMaxElements));
    tensors_.push_back({block_ + name, kind, part, shape});
  }
  void matrix(const std::string& name, Part part, std::int64_t out, std::int64_t in) {
    add(name + ".weight", ParameterKind::matrix, part, {out, in});
  }
  void vector(const std::string& name, Part part, std::int64_t size) {
    add(name, ParameterKind::vector, part, {size});
  }
  void norm(const std::string& name) { vector(name + ".weight", Part::norm, d_); }

  void memory(std::int64_t rows) {
    const auto& dse = *model_.dse;
    const auto part = Part::memory_projection;
    const std::int64_t streams = model_.hyper_connections * d_;
    add("memory.table.weight", ParameterKind::table, Part::memory_table, {rows, dse.row_width()});
    matrix("memory.key", part, streams, dse.width);
    matrix("memory.value", part, d_, dse.width);
    vector("memory.hidden_norm.weight", part, streams);
    vector("memory.key_norm.weight", part, streams);
    if (dse.bias) {
      vector("memory.key.bias", part, streams);
      vector("memory.value.bias", part, d_);
    }
    if (dse.convolution_kernel == 0) return;
    vector("memory.convolution_norm.weight", part, streams);
    add("memory.convolution.weight", ParameterKind::vector, part,
        {streams, dse.convolution_kernel});
  }

  void connection(const std::string& name) {
    const std::int64_t m = model_.hyper_connections;
    if (m == 1) return;
    matrix(name, Part::hyper_connection, m * m + 2 * m, m * d_);
    vector(name + ".bias", Part::hyper_connection, m * m + 2 * m);
    vector(name + ".scale", Part::hyper_connection, 3);
  }

  void attention() {
    const auto& a = model_.attention;
    const auto part = Part::attention;
    std::int64_t value = a.head_dim;
    switch (a.kind) {
      case AttentionKind::full:
        matrix("attention.qkv", part, (a.heads + 2 * a.kv_heads) * a.head_dim, d_);
        break;
      case AttentionKind::mla:
        value = a.mla.value_dim;
        if (a.mla.query_rank > 0) {
          matrix("attention.query_down", part, a.mla.query_rank, d_);
          vector("attention.query_norm.weight", part, a.mla.query_rank);
        }
        matrix("attention.query", part, a.heads * (a.head_dim + a.mla.rope_dim),
               a.mla.query_rank > 0 ? a.mla.query_rank : d_);
        matrix("attention.kv_down", part, a.mla.kv_rank + a.mla.rope_dim, d_);
        vector("attention.kv_norm.weight", part, a.mla.kv_rank);
        matrix("attention.kv_up", part, a.heads * (a.head_dim + value), a.mla.kv_rank);
        break;
      case AttentionKind::nsa:
        value = a.nsa.value_dim;
        matrix("attention.qkv", part, a.heads * a.head_dim + 3 * a.kv_heads * (a.head_dim + value),
               d_);
        matrix("attention.gate", part, 3 * a.heads, d_);
        compression("key", a.head_dim);
        compression("value", value);
        break;
    }
    matrix("attention.output", part, d_, a.heads * value);
    connection("attention_connection");
  }

  void compression(const std::string& name, std::int64_t dim) {
    const auto& nsa = model_.attention.nsa;
    const std::string prefix = "attention.compression." + name;
    add(prefix + "_position.weight", ParameterKind::vector, Part::attention,
        {nsa.compression_block, dim});
    matrix(prefix + "_up", Part::attention, nsa.compression_width, nsa.compression_block * dim);
    matrix(prefix + "_down", Part::attention, dim, nsa.compression_width);
  }

  void gated(const std::string& name, Part part, std::int64_t hidden) {
    matrix(name + ".gate_up", part, 2 * hidden, d_);
    matrix(name + ".down", part, d_, hidden);
    if (part == Part::dense_feed_forward) connection("feed_forward_connection");
  }

  void experts() {
    const auto& moe = model_.moe;
    const std::int64_t e = moe.routed();
    const std::int64_t w = moe.width();
    add("feed_forward.router.weight", ParameterKind::router, Part::router, {e, d_});
    add("feed_forward.experts.gate_up.weight", ParameterKind::expert, Part::routed_experts,
        {e, 2 * w, d_});
    add("feed_forward.experts.down.weight", ParameterKind::expert, Part::routed_experts,
        {e, d_, w});
    if (moe.shared_experts > 0)
      gated("feed_forward.shared", Part::shared_experts, moe.shared_experts * w);
    connection("feed_forward_connection");
  }

  const ModelConfig& model_;
  const std::int64_t d_;
  std::string block_;
  std::vector<CountedTensor> tensors_;
};

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

const char* name_of(Part part) {
  switch (part) {
    case Part::embedding:
      return "embedding";
    case Part::head:
      return "head";
    case Part::attention:
      return "attention";
    case Part::dense_feed_forward:
      return "dense feed-forward";
    case Part::router:
      return "router";
    case Part::routed_experts:
      return "routed experts";
    case Part::shared_experts:
      return "shared experts";
    case Part::memory_table:
      return "memory tables";
    case Part::memory_projection:
      return "memory projections";
    case Part::norm:
      return "norm";
    case Part::hyper_connection:
      return "hyper-connection";
  }
  return "?";
}

std::vector<CountedTensor> list_parameters(const ModelConfig& model) {
  FULCRUM_CHECK(!model.budget.rho, "the budget must be solved before parameters are listed");
  if (model.vocabulary <= 0)
    throw UserError(
        "model.vocabulary: must be known to count parameters; found 0 (the tokenizer's)");
  return Lister(model).list();
}

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
