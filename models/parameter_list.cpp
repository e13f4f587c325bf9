#include "models/parameter_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "framework/core/error.h"
#include "framework/ops/ngram.h"

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

std::vector<std::int64_t> table_rows(const DseConfig& dse) {
  const ops::NgramHashOptions options{.orders = dse.orders,
                                      .heads = dse.heads,
                                      .rows_per_head = dse.rows_per_head,
                                      .vocabulary = 1,  // primes do not depend on it
                                      .seed = dse.hash_seed};
  std::vector<std::int64_t> rows;
  for (const auto& hash : ops::make_ngram_hashes(options, dse.layers)) rows.push_back(hash.rows());
  return rows;
}

std::vector<CountedTensor> list_parameters(const ModelConfig& model) {
  FULCRUM_CHECK(!model.budget.rho, "the budget must be solved before parameters are listed");
  if (model.vocabulary <= 0)
    throw UserError(
        "model.vocabulary: must be known to count parameters; found 0 (the tokenizer's)");
  return Lister(model).list();
}

}  // namespace fulcrum::models
