#pragma once
// Losses that keep experts, devices and traffic balanced. All return a Tensor [1] of the scores'
// dtype, times `weight` (the α of the papers), and are differentiable in their first argument;
// counts carry no gradient.
//
// A batch may be spread over ranks. Counts and `global_tokens` T then cover all of it, while P_i is
// the local part of the sum divided by T: the losses of the ranks add up to the formula, and so do
// their gradients. With one rank T = n.
//
//   counts  i64 [E]: tokens that selected each expert, over the whole batch
//   P_i     1/T Σ_t s_ti
//   f_i     E / (k T) · counts_i          1 for every expert when balanced
//
// With sigmoid scores pass normalize_scores(scores): raw ones let a model lower the loss by
// lowering all scores.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// scores [n, E] divided by their sum over experts plus 1e-20 (DeepSeek-V3 eq. 19). Differentiable.
Tensor normalize_scores(const Tensor& scores);

// Expert level, DeepSeekMoE eq. 12-14: α Σ_i f_i P_i. Perfect balance of softmax scores gives α.
Tensor expert_balance_loss(const Tensor& scores, const Tensor& counts, std::int64_t top_k,
                           std::int64_t global_tokens, double weight = 1.0);

// Device level, DeepSeekMoE eq. 15-17: α Σ_d f'_d P'_d over `groups` equal runs of experts, where
// f'_d is the mean of f and P'_d the sum of P over group d.
Tensor device_balance_loss(const Tensor& scores, const Tensor& counts, std::int64_t top_k,
                           std::int64_t groups, std::int64_t global_tokens, double weight = 1.0);

// Communication, DeepSeek-V2 eq. 29-31: α Σ_d f''_d P'_d with f''_d = D / (M T) · group_counts_d,
// for D groups of which a token may use M = top_groups. group_counts: i64 [D], tokens sent to each
// group.
Tensor communication_balance_loss(const Tensor& scores, const Tensor& group_counts,
                                  std::int64_t top_groups, std::int64_t global_tokens,
                                  double weight = 1.0);

// Tokens with at least one expert in each of `groups` equal runs of `count` experts: experts i32
// [n, k] (−1: dropped, not sent) → i64 [groups].
Tensor group_token_counts(const Tensor& experts, std::int64_t count, std::int64_t groups);

// Sequence-wise, DeepSeek-V3 eq. 17-20: the mean over sequences of α Σ_i f_i P_i, both taken within
// one sequence, with f from the top k of the unbiased scores and P from the normalised ones when
// normalize is set (sigmoid). scores [n, E] hold whole sequences of sequence_length tokens one
// after the other; the mean is over global_sequences.
Tensor sequence_balance_loss(const Tensor& scores, std::int64_t sequence_length, std::int64_t top_k,
                             bool normalize, std::int64_t global_sequences, double weight = 1.0);

// Router z-loss (ST-MoE, arXiv 2202.08906, eq. 5): α / T Σ_t (log Σ_i exp logits_ti)². logits [n,
// E].
Tensor router_z_loss(const Tensor& logits, std::int64_t global_tokens, double weight = 1.0);

}  // namespace fulcrum::ops
