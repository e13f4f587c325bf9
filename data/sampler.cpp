#include "data/sampler.h"

#include <algorithm>

#include "data/permutation.h"
#include "framework/core/error.h"
#include "framework/core/philox.h"

namespace fulcrum::data {

Windows::Windows(TokenStream stream, std::int64_t sequence_length, std::int64_t vocabulary,
                 std::int32_t pad)
    : stream_(std::move(stream)),
      sequence_length_(sequence_length),
      vocabulary_(vocabulary),
      pad_(pad) {
  FULCRUM_REQUIRE(sequence_length > 0, "windows: the sequence length must be positive; got {}",
                  sequence_length);
}

std::int64_t Windows::whole() const { return targets() / sequence_length_; }

std::int64_t Windows::count() const {
  return (targets() + sequence_length_ - 1) / sequence_length_;
}

Batch Windows::load(std::span<const std::int64_t> indices) const {
  const auto rows = static_cast<std::int64_t>(indices.size());
  const std::int64_t length = sequence_length_;
  const Shape shape = {rows, length};
  Batch batch{Tensor::empty(shape, DType::i32), Tensor::empty(shape, DType::i32),
              Tensor::empty(shape, DType::i32)};
  std::vector<std::int32_t> window(static_cast<std::size_t>(length) + 1);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t index = indices[static_cast<std::size_t>(row)];
    FULCRUM_REQUIRE(index >= 0 && index < count(), "windows: window {} of {}", index, count());
    const std::int64_t first = index * length;
    const std::int64_t tokens = std::min(length + 1, stream_.tokens() - first);
    const std::int64_t positions = std::min(length, tokens);
    stream_.copy(first, tokens, window.data());
    for (std::int64_t i = 0; i < tokens; ++i) {
      const std::int32_t id = window[static_cast<std::size_t>(i)];
      if (id < 0 || id >= vocabulary_) {
        throw IoError(fmt::format("{}: id {} lies outside the vocabulary of {}",
                                  stream_.place(first + i), id, vocabulary_));
      }
    }
    std::int32_t* const ids = batch.ids.data<std::int32_t>() + row * length;
    std::int32_t* const targets = batch.targets.data<std::int32_t>() + row * length;
    std::int32_t* const starts = batch.document_start.data<std::int32_t>() + row * length;
    std::copy_n(window.begin(), positions, ids);
    std::fill(ids + positions, ids + length, pad_);
    std::copy(window.begin() + 1, window.begin() + tokens, targets);
    std::fill(targets + tokens - 1, targets + length, -1);
    stream_.document_starts(first, positions, starts);
    std::fill(starts + positions, starts + length, static_cast<std::int32_t>(positions));
  }
  return batch;
}

Sampler::Sampler(std::int64_t windows, std::int64_t global_batch, std::uint64_t seed)
    : windows_(windows), global_batch_(global_batch), seed_(seed) {
  FULCRUM_REQUIRE(windows > 0 && global_batch > 0,
                  "sampler: needs at least one window and one sample a step; got {} and {}",
                  windows, global_batch);
}

std::vector<std::int64_t> Sampler::samples(std::int64_t step) const {
  FULCRUM_REQUIRE(step >= 0, "sampler: steps count from 0; got {}", step);
  static const std::uint64_t stream = stream_of("sampler");
  std::vector<std::int64_t> indices(static_cast<std::size_t>(global_batch_));
  std::int64_t at = step * global_batch_;
  for (std::size_t i = 0; i < indices.size();) {
    const std::int64_t epoch = at / windows_;
    const Permutation order(windows_, seed_, stream + static_cast<std::uint64_t>(epoch));
    for (; i < indices.size() && at / windows_ == epoch; ++i, ++at) {
      indices[i] = order(at % windows_);
    }
  }
  return indices;
}

double Sampler::epochs(std::int64_t step) const {
  return static_cast<double>(step) * static_cast<double>(global_batch_) /
         static_cast<double>(windows_);
}

std::span<const std::int64_t> micro_batch_of(std::span<const std::int64_t> samples,
                                             std::int64_t micro_batch, std::int64_t micro_batches,
                                             std::int64_t rank, std::int64_t ranks) {
  const auto total = static_cast<std::int64_t>(samples.size());
  const std::int64_t parts = micro_batches * ranks;
  FULCRUM_REQUIRE(parts > 0 && total % parts == 0,
                  "sampler: {} micro-batches times {} ranks must divide the global batch; got {}",
                  micro_batches, ranks, total);
  FULCRUM_REQUIRE(micro_batch >= 0 && micro_batch < micro_batches && rank >= 0 && rank < ranks,
                  "sampler: micro-batch {} of {}, rank {} of {}", micro_batch, micro_batches, rank,
                  ranks);
  const std::int64_t size = total / parts;
  return samples.subspan(static_cast<std::size_t>((micro_batch * ranks + rank) * size),
                         static_cast<std::size_t>(size));
}

}  // namespace fulcrum::data
