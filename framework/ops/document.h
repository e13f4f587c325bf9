#pragma once
// Boundaries of documents that were packed into one sequence.

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// document_start i32 [batch, seq]: for every position the index, within its sequence, of the first
// position of its document. Returns its elements, or null for an undefined tensor (no boundaries).
// Throws ArgumentError, naming op, for another shape or dtype and, where the host can read them, for
// a start outside [0, position].
const std::int32_t* checked_document_start(const char* op, const Tensor& document_start,
                                           std::int64_t batch, std::int64_t seq);

}  // namespace fulcrum::ops
