#include "framework/checkpoint/background_writer.h"

#include <chrono>

#include "framework/checkpoint/shard_file.h"

namespace fulcrum::checkpoint {

BackgroundWriter::~BackgroundWriter() {
  if (result_.valid()) result_.wait();
}

void BackgroundWriter::start(const std::filesystem::path& folder, int rank,
                             const std::vector<TensorEntry>& entries, Attributes attributes) {
  FULCRUM_CHECK(!pending(), "the previous checkpoint was not collected");
  snapshot_.resize(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Tensor kept = snapshot_[i].value;
    const Tensor& value = entries[i].value;
    const bool fits =
        kept.defined() && kept.dtype() == value.dtype() && kept.shape() == value.shape();
    snapshot_[i] = entries[i];
    snapshot_[i].value = fits ? kept : Tensor::empty(value.shape(), value.dtype());
    snapshot_[i].value.copy_from(value);
  }
  result_ =
      std::async(std::launch::async, [this, folder, rank, attributes = std::move(attributes)] {
        return write_shard_file(folder, rank, snapshot_, attributes);
      });
}

bool BackgroundWriter::finished() const {
  return result_.valid() && result_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

FileEntry BackgroundWriter::wait() {
  FULCRUM_CHECK(pending(), "no checkpoint is being written");
  return result_.get();
}

void BackgroundWriter::release() {
  if (!pending()) snapshot_.clear();
}

}  // namespace fulcrum::checkpoint
