#pragma once
// How noisy the losses of a curve are.

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

// The noise scale σ of a single run: from repeated seeds, else from what a smooth polynomial (a
// cubic; a parabola below six levels) leaves. Never below least_scale.
double noise_scale(const Curve& curve);

// 1e-4 of the range of the losses, or 1e-9.
double least_scale(const Curve& curve);

}  // namespace fulcrum::apps
