#pragma once
// What router.cu and router_capacity.cu launch. Internal to ops/router.h, which has the formulas.
// Logits, scores and weights are f32.

#include "framework/ops/router.h"

namespace fulcrum::ops::cuda {

// Scores, selection and weights of every token, into r; adds to r.counts. bias may be undefined.
void route(const Tensor& logits, const Tensor& bias, const RouterOptions& options,
           const Routing& r);

// Of the slots of each group, marks those beyond the capacity: −1 in r.experts, which holds a copy
// of selected, and 0 in r.weights; adds their number to r.dropped.
void drop_lowest(const Tensor& selected, std::int64_t capacity, const RouterOptions& options,
                 const Routing& r);

// dx (+)= ∂(weights, scores)/∂logits · (dw, ds), either of which may be undefined.
void route_backward(const Tensor& scores, const Tensor& selected, const Tensor& experts,
                    const Tensor& dw, const Tensor& ds, const RouterOptions& options,
                    const Tensor& dx, bool add);

}  // namespace fulcrum::ops::cuda
