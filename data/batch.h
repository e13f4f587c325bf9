#pragma once
// What a model's forward pass receives: B rows of S consecutive tokens. All tensors are i32 [B, S],
// loaded in host memory.

#include "framework/core/tensor.h"

namespace fulcrum::data {

struct Batch {
  Tensor ids;
  Tensor targets;  // the token after each position; -1 where there is none and the loss ignores the
                   // position
  Tensor document_start;  // index within the row of the first position of that position's document
                          // (0 when it began before)

  Batch to(Device device) const {
    return {ids.to(device), targets.to(device), document_start.to(device)};
  }
  std::int64_t rows() const { return ids.dim(0); }
  std::int64_t length() const { return ids.dim(1); }
};

}  // namespace fulcrum::data
