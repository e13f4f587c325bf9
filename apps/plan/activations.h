#pragma once
// What the forward and backward pass of one micro-batch hold, tensor by tensor, in bytes of the
// pool (framework/core/memory_pool.h rounds every request up).
//
// Kept by the blocks from forward to backward, of b·S tokens, values a token (d width, w width of
// an expert, k active, E routed experts, h heads, f ffn):
//   block     4 d: input, both normed inputs, sum between the halves; 2 (inverse norms)
//   full      (2 h + 2 kv_heads)·dim + h
//   mla, nsa  see attention_values; counted, not built yet
//   dense     3 f
//   experts   k·(d + 3 w) + 3 w·shared, E scores and 5 k numbers of the routing
//   memory    d_mem + 4 d·M: memory, key, value, gated value, sum; row ids
//   mHC       2 M·d with M > 1
// With train.recompute selective, normed inputs, k·d rows of tokens and the activations' results
// (f, k·w, w·shared) are dropped unless products keep copies of their own; with full a block keeps
// d, and d_mem of a memory. Beside them, whichever is more:
//   loss      3 d a token (last hidden, normed, its gradient), a chunk of logits, and with several
//             micro-batches the head's gradient V·d, which forms in the forward pass
//   backward  the gradients inside the last block, and what is computed again there

#include <cstdint>

#include "framework/autograd/recompute.h"
#include "framework/core/device.h"
#include "framework/core/memory_pool.h"
#include "framework/core/shape.h"
#include "models/config.h"

namespace fulcrum::apps {

// Bytes of an element, by kind.
struct ElementBytes {
  std::int64_t matrix = 4;      // of weights that products read: matrices, experts, embedding, head
  std::int64_t master = 0;      // of the copy beside those that the optimizer updates; 0: none
  std::int64_t vector = 4;      // of the other weights: vectors, routers, tables
  std::int64_t gradient = 4;    // of weights
  std::int64_t moment = 4;      // of the optimizer, unless optimizer.moments makes it smaller
  std::int64_t activation = 4;  // as operators keep it, and of its gradient
  std::int64_t operand = 4;     // as products keep it
  std::int64_t statistic = 4;   // of scores, norms and their sums
  std::int64_t logit = 4;
  Device device;  // decides how many logits exist at once, and how requests are rounded

  std::int64_t pooled(std::int64_t bytes) const { return pooled_bytes(bytes, device); }
};

// Of the last stage's loss.
struct LossMemory {
  std::int64_t training = 0;
  std::int64_t validation = 0;  // without gradients
};

struct BlockMemory {
  std::int64_t kept = 0;
  std::int64_t validation = 0;  // at most in a pass without gradients, which keeps nothing
  std::int64_t backward = 0;    // at most, on top of what all blocks keep, when it is the last one
};

// scores: bytes that attention's backward takes beside tensors (ops::kMostScoreBytes).
BlockMemory block_memory(const models::ModelConfig& model, std::int64_t layer, std::int64_t tokens,
                         std::int64_t scores, const ElementBytes& bytes, Recompute recompute);
LossMemory loss_memory(const models::ModelConfig& model, std::int64_t tokens, bool accumulates,
                       const ElementBytes& bytes);

}  // namespace fulcrum::apps
