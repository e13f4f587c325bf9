#pragma once
// Choice of experts for each token: DeepSeekMoE (arXiv 2401.06066, eq. 9-11), DeepSeek-V2
// section 2.2 (device-limited routing, dropping) and DeepSeek-V3 section 2.1.2 (sigmoid scores,
// selection bias, node-limited routing).
//
//   s_t = softmax(logits_t) or sigmoid(logits_t)                        over all E routed experts
//   selection: the top k of s_t + bias; equal values go to the lower expert id
//   w_tj = route_scale · s_te                                           e = experts[t, j]
//        = route_scale · s_te / (Σ_selected s_t + 1e-20)                with renormalize
//
// The bias steers the selection alone: it gets no gradient and enters no weight (loss-free
// balancing). Selection is piecewise constant; gradients flow through the scores.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

struct RouterOptions {
  bool sigmoid = false;      // score function; false: softmax
  std::int64_t top_k = 1;    // experts of one token
  bool renormalize = false;  // weights of a token sum to route_scale
  double route_scale = 1.0;
  // Group-limited routing: the E experts form `groups` equal runs of consecutive ids, and a token
  // uses only its best `top_groups` of them. A group's worth is its largest s + bias (V2), or the
  // sum of its two largest (V3, group_top2).
  std::int64_t groups = 1;
  std::int64_t top_groups = 1;
  bool group_top2 = false;
  // Above 0: of the slots that chose a group, only the ⌈capacity_factor · n · k / groups⌉ of
  // highest score are kept; equal scores favour the earlier token. For training; evaluation passes
  // 0, which drops nothing.
  double capacity_factor = 0.0;
  Tensor
      keep;  // u8 [n], not 0: this token is never dropped, whatever the capacity; may be undefined
};

struct Routing {
  Tensor experts;  // i32 [n, k], best first; −1 where the slot was dropped
  Tensor weights;  // [n, k], differentiable; 0 where the slot was dropped
  Tensor scores;   // [n, E], differentiable: s of all experts, for balance losses
  Tensor counts;   // i64 [E]: tokens that selected each expert, before dropping
  Tensor dropped;  // i64 [1]: number of dropped slots
};

// logits [n, E]; bias f32 [E] or undefined.
Routing route(const Tensor& logits, const Tensor& bias, const RouterOptions& options);

}  // namespace fulcrum::ops
