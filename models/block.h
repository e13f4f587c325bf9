#pragma once
// One layer of the residual stream:
//
//   h = x + memory(x)                      only in blocks that own one
//   h = h + attention(norm(h))
//   y = h + feed_forward(norm(h))

//
// With full recompute backward runs all of this again from x and the memory's rows.

#include <memory>
#include <string>

#include "models/attention.h"
#include "models/feed_forward.h"
#include "models/memory.h"
#include "models/moe.h"

namespace fulcrum::models {

class Block {
 public:
  Block(ParameterStore& store, const std::string& name, const ModelConfig& config,
        std::int64_t layer, std::unique_ptr<Memory> memory);

  // [batch, sequence, width] → the same shape
  Tensor forward(const Tensor& x, ForwardPass& pass);

  Memory* memory() const { return memory_.get(); }
  // Null where the feed-forward is dense.
  MoeFeedForward* moe() const { return moe_; }

 private:
  // rows: what memory_->read() gave
  Tensor run(const Tensor& x, const Tensor& rows, ForwardPass& pass) const;
  Tensor run_twice(const Tensor& x, const Tensor& rows, ForwardPass& pass) const;

  std::unique_ptr<Memory> memory_;
  RmsNorm attention_norm_;
  std::unique_ptr<Attention> attention_;
  RmsNorm feed_forward_norm_;
  std::unique_ptr<FeedForward> feed_forward_;
  MoeFeedForward* moe_ = nullptr;
};

}  // namespace fulcrum::models
