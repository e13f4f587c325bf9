#include "models/config_parser.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace fulcrum::models {
namespace {

using config::above;
using config::at_least;
using config::between;
using config::Section;

constexpr double kMaxRows =
    1e12;  // of one table; keeps every row id and product of sizes in 63 bits

void bind_mla(Section& s, AttentionConfig::Mla& mla) {
  s.optional("query_rank", mla.query_rank, at_least(0));
  s.optional("kv_rank", mla.kv_rank, at_least(0));
  s.optional("rope_dim", mla.rope_dim, at_least(0));
  s.optional("value_dim", mla.value_dim, at_least(0));
}

void bind_nsa(Section& s, AttentionConfig::Nsa& nsa) {
  s.optional("compression_block", nsa.compression_block, at_least(1));
  s.optional("compression_stride", nsa.compression_stride, at_least(1));
  s.optional("selection_block", nsa.selection_block, at_least(1));
  s.optional("selected_blocks", nsa.selected_blocks, at_least(3));
  s.optional("window", nsa.window, at_least(1));
  s.optional("value_dim", nsa.value_dim, at_least(0));
  s.optional("compression_width", nsa.compression_width, at_least(0));
  s.close();
  const auto divides = [&](std::int64_t whole, std::string_view key, std::string_view whole_name) {
    s.rule(whole % nsa.compression_stride == 0, key,
           fmt::format("must be a multiple of compression_stride {}; found {} {}",
                       nsa.compression_stride, whole_name, whole));
  };
  divides(nsa.compression_block, "compression_block", "compression_block");
  divides(nsa.selection_block, "selection_block", "selection_block");
  s.rule(nsa.compression_block <= nsa.selection_block, "selection_block",
         fmt::format("must be at least compression_block {}; found {}", nsa.compression_block,
                     nsa.selection_block));
}

void bind_attention(Section& s, AttentionConfig& attention) {
  s.choice(
      "kind", attention.kind,
      {{"full", AttentionKind::full}, {"nsa", AttentionKind::nsa}, {"mla", AttentionKind::mla}});
  s.required("heads", attention.heads, at_least(1));
  s.optional("kv_heads", attention.kv_heads, at_least(0));
  s.optional("head_dim", attention.head_dim, at_least(0));
  s.optional("rope_theta", attention.rope_theta, above(0));
  s.section("mla", [&](Section& m) { bind_mla(m, attention.mla); });
  s.section("nsa", [&](Section& n) { bind_nsa(n, attention.nsa); });
}

void bind_moe(Section& s, MoeConfig& moe) {
  s.optional("experts", moe.experts, at_least(0));
  s.optional("top_k", moe.top_k, at_least(1));
  s.optional("shared_experts", moe.shared_experts, at_least(0));
  s.optional("expert_width", moe.expert_width, at_least(0));
  s.optional("segmentation", moe.segmentation, at_least(1));
  s.optional("leading_dense", moe.leading_dense, at_least(0));
  s.choice("score", moe.score,
           {{"softmax", RouterScore::softmax}, {"sigmoid", RouterScore::sigmoid}});
  s.optional("renormalize", moe.renormalize);
  s.optional("route_scale", moe.route_scale, above(0));
  s.optional("groups", moe.groups, at_least(1));
  s.optional("top_groups", moe.top_groups, at_least(1));
  s.choice("group_score", moe.group_score, {{"max", GroupScore::max}, {"top2", GroupScore::top2}});
  s.optional("capacity_factor", moe.capacity_factor, at_least(0));
  s.optional("undropped_sequences", moe.undropped_sequences, between(0, 1));
  s.section("balance", [&](Section& b) {
    auto& balance = moe.balance;
    b.choice(
        "scope", balance.scope,
        {{"global_batch", BalanceScope::global_batch}, {"micro_batch", BalanceScope::micro_batch}});
    b.optional("expert_loss", balance.expert_loss, at_least(0));
    b.optional("device_loss", balance.device_loss, at_least(0));
    b.optional("communication_loss", balance.communication_loss, at_least(0));
    b.optional("sequence_loss", balance.sequence_loss, at_least(0));
    b.optional("bias_rate", balance.bias_rate, at_least(0));
    b.optional("bias_fraction", balance.bias_fraction, between(0, 1));
    b.optional("z_loss", balance.z_loss, at_least(0));
  });
}

void bind_dse(Section& s, DseConfig& dse) {
  s.required("layers", dse.layers, at_least(0));
  s.optional("orders", dse.orders, between(2, 16));
  s.optional("heads", dse.heads, at_least(1));
  s.required("width", dse.width, at_least(1));
  s.optional("rows_per_head", dse.rows_per_head, between(2, kMaxRows));
  s.optional("compress_tokenizer", dse.compress_tokenizer);
  s.optional("hash_seed", dse.hash_seed, at_least(0));
  s.optional("pad_id", dse.pad_id, at_least(-1));
  s.choice("boundary", dse.boundary,
           {{"none", BoundaryPolicy::none}, {"document", BoundaryPolicy::document}});
  s.optional("signed_sqrt", dse.signed_sqrt);
  s.optional("bias", dse.bias);
  s.optional("convolution_kernel", dse.convolution_kernel, at_least(0));
  s.optional("convolution_zero_init", dse.convolution_zero_init);
  s.optional("table_std", dse.table_std, at_least(0));
}

void fill_defaults(ModelConfig& model) {
  auto& attention = model.attention;
  if (attention.kv_heads == 0) attention.kv_heads = attention.heads;
  if (attention.head_dim == 0) attention.head_dim = model.width / attention.heads;
  if (attention.mla.value_dim == 0) attention.mla.value_dim = attention.head_dim;
  if (attention.nsa.value_dim == 0) attention.nsa.value_dim = attention.head_dim;
  if (attention.nsa.compression_width == 0) attention.nsa.compression_width = attention.head_dim;
}

void check_attention(const Section& s, const ModelConfig& model) {
  const auto& a = model.attention;
  s.rule(a.head_dim > 0 || model.width % a.heads == 0, "attention.heads",
         fmt::format("must divide width {} when head_dim is not given; found {}", model.width,
                     a.heads));
  s.rule(a.kv_heads == 0 || a.heads % a.kv_heads == 0, "attention.kv_heads",
         fmt::format("must divide heads {}; found {}", a.heads, a.kv_heads));
  const std::int64_t head_dim = a.head_dim > 0 ? a.head_dim : model.width / a.heads;
  if (a.kind == AttentionKind::mla) {
    s.rule(a.mla.kv_rank > 0, "attention.mla.kv_rank", "must be above 0 for kind mla; found 0");
    s.rule(a.mla.rope_dim > 0 && a.mla.rope_dim % 2 == 0, "attention.mla.rope_dim",
           fmt::format("must be even and above 0 for kind mla; found {}", a.mla.rope_dim));
    s.rule(a.kv_heads == 0 || a.kv_heads == a.heads, "attention.kv_heads",
           fmt::format("must equal heads {} for kind mla; found {}", a.heads, a.kv_heads));
  } else {
    s.rule(head_dim % 2 == 0, "attention.head_dim",
           fmt::format("must be even, as rotary positions turn pairs; found {}", head_dim));
  }
}

void check_moe(const Section& s, const ModelConfig& model) {
  const auto& moe = model.moe;
  const bool all_dense = moe.experts == 0;
  s.rule(model.ffn_width > 0 || (!all_dense && moe.leading_dense == 0), "ffn_width",
         all_dense ? "must be above 0 when moe.experts is 0; found 0"
                   : fmt::format("must be above 0 for moe.leading_dense {} blocks; found 0",
                                 moe.leading_dense));
  if (all_dense) return;
  s.rule(moe.top_k <= moe.experts, "moe.top_k",
         fmt::format("must be at most moe.experts {}; found {}", moe.experts, moe.top_k));
  s.rule(moe.expert_width > 0, "moe.expert_width",
         "must be above 0 when there are experts; found 0");
  s.rule(
      moe.expert_width % moe.segmentation == 0, "moe.segmentation",
      fmt::format("must divide moe.expert_width {}; found {}", moe.expert_width, moe.segmentation));
  s.rule(moe.leading_dense < model.layers, "moe.leading_dense",
         fmt::format("must be below layers {}, so that a block has experts; found {}", model.layers,
                     moe.leading_dense));
  s.rule(moe.routed() % moe.groups == 0, "moe.groups",
         fmt::format("must divide the {} routed experts; found {}", moe.routed(), moe.groups));
  s.rule(moe.top_groups <= moe.groups, "moe.top_groups",
         fmt::format("must be at most moe.groups {}; found {}", moe.groups, moe.top_groups));
  const std::int64_t in_group = moe.routed() / moe.groups;
  s.rule(moe.top_groups * in_group >= moe.active(), "moe.top_groups",
         fmt::format("{} groups of {} experts must hold the {} experts that a token visits",
                     moe.top_groups, in_group, moe.active()));
  s.rule(moe.group_score == GroupScore::max || in_group >= 2, "moe.group_score",
         fmt::format("top2 needs at least 2 experts in a group; found {}", in_group));
  s.rule(moe.groups > 1 || moe.balance.device_loss == 0, "moe.balance.device_loss",
         fmt::format("needs moe.groups above 1; found {} with 1 group", moe.balance.device_loss));
  s.rule(moe.groups > 1 || moe.balance.communication_loss == 0, "moe.balance.communication_loss",
         fmt::format("needs moe.groups above 1; found {} with 1 group",
                     moe.balance.communication_loss));
}

void check_dse(const Section& s, const ModelConfig& model) {
  const auto& dse = *model.dse;
  const auto ascending = [](const std::vector<std::int64_t>& list) {
    return std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) == list.end();
  };
  s.rule(!dse.layers.empty() && ascending(dse.layers) && dse.layers.back() < model.layers,
         "dse.layers",
         fmt::format("must be ascending block numbers from 0 to {}; found {}", model.layers - 1,
                     dse.layers));
  s.rule(!dse.orders.empty() && ascending(dse.orders) &&
             dse.orders.back() - dse.orders.front() + 1 ==
                 static_cast<std::int64_t>(dse.orders.size()),
         "dse.orders",
         fmt::format("must be consecutive, ascending and at least 2; found {}", dse.orders));
  const auto orders = static_cast<std::int64_t>(dse.orders.size());
  s.rule(dse.width % (orders * dse.heads) == 0, "dse.width",
         fmt::format("must be a multiple of orders x heads = {} x {}; found {}", orders, dse.heads,
                     dse.width));
  const auto rows = static_cast<std::int64_t>(dse.rows_per_head.size());
  if (model.budget.rho) {
    s.rule(rows == 0, "dse.rows_per_head",
           "must be absent, because budget.rho sets the table sizes");
  } else {
    s.rule(
        rows == 1 || rows == orders, "dse.rows_per_head",
        fmt::format("must be one number for all orders or one for each of the {} orders (or give "
                    "budget.rho); found {} numbers",
                    orders, rows));
  }
  s.rule(model.vocabulary == 0 || dse.pad_id < model.vocabulary, "dse.pad_id",
         fmt::format("must be below vocabulary {}; found {}", model.vocabulary, dse.pad_id));
}

void check_budget(const Section& s, const ModelConfig& model) {
  if (!model.budget.rho) return;
  s.rule(model.moe.experts > 0, "budget.rho", "needs experts: moe.experts is 0");
  s.rule(*model.budget.rho == 1.0 || model.dse.has_value(), "budget.rho",
         fmt::format("below 1 needs a memory: dse is absent; found {}", *model.budget.rho));
  s.rule(model.moe.experts > model.moe.top_k, "budget.rho",
         fmt::format("needs inactive experts to trade: moe.experts and moe.top_k are both {}",
                     model.moe.experts));
}

}  // namespace

void bind(Section& s, ModelConfig& model) {
  s.required("layers", model.layers, between(1, 4096));
  s.required("width", model.width, at_least(1));
  s.optional("ffn_width", model.ffn_width, at_least(0));
  s.optional("vocabulary", model.vocabulary, between(0, 2147483647));
  s.optional("tie_embeddings", model.tie_embeddings);
  s.optional("norm_eps", model.norm_eps, above(0));
  s.optional("init_std", model.init_std, above(0));
  s.optional("scale_residual_init", model.scale_residual_init);
  s.optional("hyper_connections", model.hyper_connections, at_least(1));
  s.section("attention", [&](Section& a) { bind_attention(a, model.attention); });
  s.section("moe", [&](Section& m) { bind_moe(m, model.moe); });
  s.optional_section<DseConfig>("dse", model.dse, bind_dse);
  s.section("budget", [&](Section& b) {
    b.optional("rho", model.budget.rho, {.min = 0, .max = 1, .open_min = true});
  });
  s.close();
  check_attention(s, model);
  check_moe(s, model);
  if (model.dse) check_dse(s, model);
  check_budget(s, model);
  fill_defaults(model);
}

void validate(const ModelConfig& model) {
  config::write(
      model, [](Section& s, ModelConfig& m) { bind(s, m); }, "model");
}

}  // namespace fulcrum::models
