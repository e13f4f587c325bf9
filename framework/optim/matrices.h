#pragma once
// Which matrices a parameter is made of, for optimizers that treat each apart.

#include <cstdint>
#include <vector>

#include "framework/nn/parameter.h"

namespace fulcrum {

// Neighbouring rows of a parameter's master, from element `offset` on.
struct MatrixOf {
  std::int64_t offset, rows, cols;
};

// Of [out, in] or [stack, out, in]: every leading index of a stack is a matrix, and is divided into
// Parameter::parts. Matrices without elements are left out.
std::vector<MatrixOf> matrices_of(const Parameter& parameter);

}  // namespace fulcrum
