#pragma once
// The parameter budget: exact counts, tensor by tensor, and the split of the sparse parameters
// between experts and memory (DSE, arXiv 2601.07372, section 3.1).
//
//   P_tot     all parameters without token embedding and output head
//   P_act     those of P_tot that one token uses: top_k routed experts of each layer, one row of
//   each hash head P_sparse  P_tot − P_act at ρ = 1: the weights of the routed experts that a token
//   does not visit ρ         the share of P_sparse that stays with routed experts; the rest pays
//   for the memory

#include <cstdint>
#include <string>
#include <vector>

#include "framework/core/shape.h"
#include "framework/nn/parameter.h"
#include "models/config.h"

namespace fulcrum::models {

enum class Part : std::uint8_t {
  embedding,
  head,
  attention,
  dense_feed_forward,
  router,
  routed_experts,
  shared_experts,
  memory_table,
  memory_projection,  // keys, values, norms and convolution of a memory
  norm,
  hyper_connection,
};

const char* name_of(Part part);

struct CountedTensor {
  std::string name;  // as in the built model
  ParameterKind kind;
  Part part;
  Shape shape;

  std::int64_t numel() const { return shape.numel(); }
};

// Every parameter of the model in the order of its creation. budget.rho must be absent (see
// solve_budget) and the vocabulary known. Shapes, with d = width, M = hyper_connections, w = width
// of an expert after segmentation:
//   embedding.weight [V, d], norm.weight [d], head.weight [V, d] (absent when tied)
//   blocks.I.memory.: table.weight [rows, row_width], key.weight [M·d, d_mem], value.weight [d,
//   d_mem], key.bias, value.bias,
//     hidden_norm.weight, key_norm.weight, convolution_norm.weight [M·d], convolution.weight [M·d,
//     kernel]
//   blocks.I.attention_norm.weight, blocks.I.feed_forward_norm.weight [d]
//   blocks.I.attention. full: qkv.weight [(heads + 2 kv_heads)·dim, d], output.weight [d,
//   heads·dim]
//     mla (DeepSeek-V2 eq. 9 to 19): query_down.weight [query_rank, d], query_norm.weight,
//     query.weight [heads·(dim + rope),
//       query_rank or d], kv_down.weight [kv_rank + rope, d], kv_norm.weight, kv_up.weight
//       [heads·(dim + value), kv_rank], output.weight [d, heads·value]
//     nsa (section 3): qkv.weight [heads·dim + 3 kv_heads·(dim + value), d], gate.weight [3 heads,
//     d], output.weight
//       [d, heads·value]; a compression MLP over the block's l tokens, shared by the heads, for
//       keys and for values: compression.key_position.weight [l, dim], compression.key_up.weight
//       [c, l·dim], compression.key_down.weight [dim, c]
//   blocks.I.feed_forward. dense: gate_up.weight [2 ffn, d], down.weight [d, ffn]; experts:
//   router.weight [E, d],
//     experts.gate_up.weight [E, 2w, d], experts.down.weight [E, d, w], shared.gate_up.weight,
//     shared.down.weight
//   blocks.I.{attention,feed_forward}_connection. with M > 1 (mHC, arXiv 2512.24880): weight [M² +
//   2M, M·d], bias [M² + 2M],
//     scale [3], for the maps before, after and along the residual streams
std::vector<CountedTensor> list_parameters(const ModelConfig& model);

struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t embedding = 0;  // token embedding and head
  std::int64_t experts = 0;    // routed and shared expert matrices
  std::int64_t memory = 0;     // tables and what belongs to them
  std::int64_t other = 0;      // attention, dense feed-forwards, routers, norms, hyper-connections
  std::int64_t active =
      0;  // P_act and the head: the published "activated, without token embedding"

  std::int64_t tables = 0;          // of memory
  std::int64_t routed_experts = 0;  // of experts
  std::int64_t head = 0;            // of embedding; the shared matrix when tied

  std::int64_t p_tot() const { return total - embedding; }
  std::int64_t p_act() const { return active - head; }
  std::int64_t p_sparse() const { return p_tot() - p_act(); }
};

ParameterCount count_parameters(const ModelConfig& model);

// Floating-point operations of one token's forward and backward pass in a sequence of this length:
//   6 · (matrix parameters in use, the head among them) + 6 · Σ_layers heads · (d_qk + d_v) · mean
//   keys
// A causal token sees (S + 1)/2 keys in the mean; in NSA those of its three branches, and the
// compressed keys are scored once more without a gradient. Lookups, norms, gates and convolutions
// are left out. NSA's compression runs once per stride and head.
double flops_per_token(const ModelConfig& model, std::int64_t sequence_length);

}  // namespace fulcrum::models
