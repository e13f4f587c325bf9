#pragma once
// Every parameter of a model, before it is built: what budgets, plans and step floors count.

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

// Rows of the concatenated table of each memory layer, after the prime search over all layers.
std::vector<std::int64_t> table_rows(const DseConfig& dse);

}  // namespace fulcrum::models
