#pragma once
// Counters of what experts got, and the selection bias that follows them (auxiliary-loss-free
// balancing, DeepSeek-V3 section 2.1.2). In place, without gradients.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// total += counts, i64 of one shape.
void accumulate_counts(const Tensor& total, const Tensor& counts);

// bias += rate for the experts below the mean load, − rate for those above it: bias f32 [experts],
// load i64 of as many elements.
void follow_load(const Tensor& bias, const Tensor& load, double rate);

}  // namespace fulcrum::ops
