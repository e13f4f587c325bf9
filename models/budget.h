#pragma once
// The parameter budget: exact counts, tensor by tensor, and the split of the sparse parameters
// between experts and memory (DSE, arXiv 2601.07372, section 3.1).
//
//   P_tot     all parameters without token embedding and output head
//   P_act     those of P_tot that one token uses: the routed experts it visits, one row of each
//             hash head, and everything that is neither
//   P_sparse  P_tot − P_act; at ρ = 1 the routed experts that a token does not visit
//   ρ         the share of P_sparse that is routed experts; the rest is memory

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
// solve_budget) and the vocabulary known. Names and shapes, with d = width, M = hyper_connections,
// w = width of an expert after segmentation (".weight" is left out here):
//
//   embedding                 [V, d]
//   blocks.I.memory.
//     table                   [rows, row_width]
//     key, value              [M·d, d_mem], [d, d_mem]
//     hidden_norm, key_norm   [M·d]
//     key.bias, value.bias    [M·d], [d]; only with dse.bias
//     convolution_norm        [M·d]; absent without a convolution
//     convolution             [M·d, kernel]
//   blocks.I.attention_norm   [d]
//   blocks.I.attention.       full
//     qkv                     [(heads + 2 kv_heads)·dim, d]
//     output                  [d, heads·dim]
//   blocks.I.attention.       mla (DeepSeek-V2 eq. 9 to 19)
//     query_down, query_norm  [query_rank, d], [query_rank]; absent with query_rank 0
//     query                   [heads·(dim + rope), query_rank or d]
//     kv_down, kv_norm        [kv_rank + rope, d], [kv_rank]
//     kv_up                   [heads·(dim + value), kv_rank]
//     output                  [d, heads·value]
//   blocks.I.attention.       nsa (section 3); compression MLPs of width c over blocks of l tokens
//     qkv                     [heads·dim + 3 kv_heads·(dim + value), d]
//     gate                    [3 heads, d]
//     compression.key_position, key_up, key_down   [l, dim], [c, l·dim], [dim, c]
//     compression.value_…     the same with the value's width
//     output                  [d, heads·value]
//   blocks.I.attention_connection, feed_forward_connection   with M > 1 (mHC, arXiv 2512.24880):
//                             [M² + 2M, M·d], bias [M² + 2M], scale [3]: the maps before, after
//                             and along the streams
//   blocks.I.feed_forward_norm [d]
//   blocks.I.feed_forward.    dense
//     gate_up, down           [2 ffn, d], [d, ffn]
//   blocks.I.feed_forward.    experts
//     router                  [E, d]
//     experts.gate_up, down   [E, 2w, d], [E, d, w]
//     shared.gate_up, down    [2w·shared, d], [d, w·shared]
//   norm                      [d]
//   head                      [V, d]; absent when tied
std::vector<CountedTensor> list_parameters(const ModelConfig& model);

struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t embedding = 0;  // token embedding and head
  std::int64_t experts = 0;    // routed and shared expert matrices
  std::int64_t memory = 0;     // tables and what belongs to them
  std::int64_t other = 0;      // attention, dense feed-forwards, routers, norms, hyper-connections
  // P_act and the head: what papers print as activated without the token embedding.
  std::int64_t active = 0;

  std::int64_t tables = 0;          // of memory
  std::int64_t routed_experts = 0;  // of experts
  std::int64_t head = 0;            // of embedding; the shared matrix when tied

  std::int64_t p_tot() const { return total - embedding; }
  std::int64_t p_act() const { return active - head; }
  std::int64_t p_sparse() const { return p_tot() - p_act(); }
};

ParameterCount count_parameters(const ModelConfig& model);

// Floating-point operations of one token's forward and backward pass in a sequence of this length:
//   6 · (matrix parameters in use, the head among them)
//     + 6 · Σ_layers heads · (d_qk + d_v) · mean keys
// A causal token sees (S + 1)/2 keys in the mean; in NSA those of its three branches, and the
// compressed keys are scored once more without a gradient. Lookups, norms, gates and convolutions
// are left out. NSA's compression runs once per stride and head.
double flops_per_token(const ModelConfig& model, std::int64_t sequence_length);

}  // namespace fulcrum::models
