#pragma once
// The parameter budget: exact counts and the split of the sparse parameters between experts and
// memory (DSE, arXiv 2601.07372, section 3.1).
//
//   P_tot     all parameters without token embedding and output head
//   P_act     those of P_tot that one token uses: the routed experts it visits, one row of each
//             hash head, and everything that is neither
//   P_sparse  P_tot − P_act; at ρ = 1 the routed experts that a token does not visit
//   ρ         the share of P_sparse that is routed experts; the rest is memory

#include <cstdint>

#include "models/parameter_list.h"

namespace fulcrum::models {

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
