#pragma once
// What balance_loss.cu, normalize_scores.cu and router_z_loss.cu launch. Internal to
// ops/balance_loss.h, which has the formulas. Scores, logits, coefficients and losses are f32; sums
// over tokens are formed in f64, in fixed order.

#include "framework/core/tensor.h"

namespace fulcrum::ops::cuda {

// y = scores · inverse with inverse [n] = 1 / (Σ scores + 1e-20).
void normalize_scores(const Tensor& scores, const Tensor& y, const Tensor& inverse);
// ds = (g − Σ y · g) · inverse
void normalize_scores_backward(const Tensor& y, const Tensor& inverse, const Tensor& g,
                               const Tensor& ds);

// Coefficients c [1, E]: each expert has factor times the sum of counts over its group, one of
// equal runs of experts. counts i64, of each expert or of each group.
void group_coefficients(const Tensor& counts, std::int64_t groups, double factor, const Tensor& c);
// c [sequences, E]: factor times how often each expert is among a token's top_k of scores.
void sequence_coefficients(const Tensor& scores, std::int64_t sequence_length, std::int64_t top_k,
                           double factor, const Tensor& c);

// loss = Σ_t Σ_i c[t / rows_per_set, i] · scores[t, i]
void linear_loss(const Tensor& scores, const Tensor& c, std::int64_t rows_per_set,
                 const Tensor& loss);
// ds (+)= seed · c, seed [1]
void linear_loss_backward(const Tensor& c, std::int64_t rows_per_set, const Tensor& seed,
                          const Tensor& ds, bool add);

// counts i64 [groups] = tokens of experts i32 [n, k] with an expert in each run of per_group.
void group_token_counts(const Tensor& experts, std::int64_t per_group, const Tensor& counts);

// loss = factor · Σ lse², lse [n] the logarithm of each row's sum of exponentials.
void router_z_loss(const Tensor& logits, double factor, const Tensor& lse, const Tensor& loss);
// dx (+)= 2 · seed · factor · lse · softmax(logits)
void router_z_loss_backward(const Tensor& logits, const Tensor& lse, double factor,
                            const Tensor& seed, const Tensor& dx, bool add);

}  // namespace fulcrum::ops::cuda
