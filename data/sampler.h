#pragma once
// Which text a training step sees: a pure function of (seed, step), the same on every mesh.
//
// A split is cut into windows: window i holds the S + 1 tokens i·S … i·S + S of the concatenated
// documents, so each token is a target once in an epoch. Every epoch visits all whole windows once,
// in a pseudo-random order of its own.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/token_stream.h"

namespace fulcrum::data {

// The windows of one split.
class Windows {
 public:
  // vocabulary: bound of the ids, checked while loading. pad: the id that fills the end of the
  // last, partial window.
  Windows(TokenStream stream, std::int64_t sequence_length, std::int64_t vocabulary,
          std::int32_t pad);

  std::int64_t sequence_length() const { return sequence_length_; }
  // Windows with S + 1 tokens: what training uses.
  std::int64_t whole() const;
  // All windows, with a partial one at the end if tokens are left over: what validation walks
  // through in order.
  std::int64_t count() const;
  // Tokens that serve as targets when all windows are read.
  std::int64_t targets() const { return std::max<std::int64_t>(stream_.tokens() - 1, 0); }

  // One row a window, indices in [0, count()). Positions past the end of the split hold `pad` with
  // target -1. IoError names file and place of an id outside the vocabulary.
  Batch load(std::span<const std::int64_t> indices) const;

  const TokenStream& stream() const { return stream_; }

 private:
  TokenStream stream_;
  std::int64_t sequence_length_, vocabulary_;
  std::int32_t pad_;
};

// The order of training.
class Sampler {
 public:
  // windows: how many there are, at least 1. global_batch: windows a step takes.
  Sampler(std::int64_t windows, std::int64_t global_batch, std::uint64_t seed);

  // The global batch of a step (0-based); an epoch may end inside it.
  std::vector<std::int64_t> samples(std::int64_t step) const;
  // Epochs completed before a step.
  double epochs(std::int64_t step) const;

 private:
  std::int64_t windows_, global_batch_;
  std::uint64_t seed_;
};

// The windows that rank `rank` of `ranks` computes in micro-batch j of `micro_batches`: global
// batches are laid out as [micro_batches, ranks, micro_batch]. ArgumentError when the sizes do not
// divide.
std::span<const std::int64_t> micro_batch_of(std::span<const std::int64_t> samples,
                                             std::int64_t micro_batch, std::int64_t micro_batches,
                                             std::int64_t rank, std::int64_t ranks);

}  // namespace fulcrum::data
