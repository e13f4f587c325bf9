#pragma once
// out = parts[0] + parts[1] + … (or the maximum), element by element and in this order. out may be
// one of the parts.

#include <span>

#include "framework/core/dtype.h"
#include "parallel/communicator.h"

namespace fulcrum::parallel {

void reduce_parts(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype,
                  Reduce op);

}  // namespace fulcrum::parallel
