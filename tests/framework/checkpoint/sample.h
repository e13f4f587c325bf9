#pragma once
// A small checkpoint with every dtype, split over ranks unevenly.

#include <filesystem>
#include <vector>

#include "framework/checkpoint/folder.h"
#include "framework/checkpoint/shard_file.h"
#include "framework/checkpoint/store.h"
#include "framework/core/philox.h"
#include "tests/gradient_check.h"

namespace fulcrum::testing {

inline Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype = DType::f32) {
  const Tensor t = Tensor::empty(shape, DType::f32);
  fill_normal(t, 1.0, 7, stream);
  return t.to(dtype);
}

// The tensors of a checkpoint, whole; values depend on the step.
inline std::vector<checkpoint::TensorEntry> sample_tensors(std::int64_t step) {
  using checkpoint::TensorEntry;
  const auto stream = static_cast<std::uint64_t>(step) * 100;
  return {TensorEntry::whole("parameters/blocks.0.matrix", normal({7, 5}, stream + 1)),
          TensorEntry::whole("parameters/table", normal({11, 3}, stream + 2, DType::bf16)),
          TensorEntry::whole("parameters/norm", normal({6}, stream + 3, DType::f64)),
          TensorEntry::whole("optimizer/blocks.0.matrix/m", normal({7, 5}, stream + 4)),
          TensorEntry::whole("buffers/counts",
                             Tensor::full({4}, static_cast<double>(step), DType::i64)),
          TensorEntry::whole("buffers/ids", Tensor::full({5, 1, 2}, -3.0, DType::i32)),
          TensorEntry::whole("buffers/halves", Tensor::full({3}, 65535.0, DType::u16)),
          TensorEntry::whole("buffers/bytes", Tensor::full({9}, 255.0, DType::u8)),
          TensorEntry::whole("buffers/nothing", Tensor::empty({0, 4}, DType::f32))};
}

// The part of the tensors that a rank holds: rows rank·n/ranks ….
inline std::vector<checkpoint::TensorEntry> shards_of(
    const std::vector<checkpoint::TensorEntry>& tensors, int rank, int ranks) {
  std::vector<checkpoint::TensorEntry> shards;
  for (const auto& whole : tensors) {
    const std::int64_t n = whole.global_shape[0];
    const std::int64_t first = n * rank / ranks;
    const std::int64_t last = n * (rank + 1) / ranks;
    shards.push_back({whole.name, whole.value.slice(first, last), whole.global_shape, first});
  }
  return shards;
}

inline checkpoint::Attributes sample_attributes(std::int64_t step) {
  return {{"seed", std::int64_t{1} << 62},
          {"loss", 2.5 / static_cast<double>(step + 1)},
          {"config", std::string("model:\n  width: 64  # ρ\n") + std::string(100'000, 'x')}};
}

// Saves as `ranks` ranks would.
inline void save_sample(const std::filesystem::path& directory, std::int64_t step, int ranks = 2,
                        std::int64_t keep = 0) {
  using namespace checkpoint;
  const CheckpointStore store(directory, keep);
  store.begin(step);
  const auto tensors = sample_tensors(step);
  std::vector<FileEntry> files;
  for (int rank = 0; rank < ranks; ++rank) {
    const FileEntry entry = write_shard_file(unfinished_folder(directory, step), rank,
                                             shards_of(tensors, rank, ranks), {});
    files.push_back(FileEntry::from_text(entry.to_text()));  // the way it travels
  }
  store.finalize(step, files, sample_attributes(step));
}

}  // namespace fulcrum::testing
