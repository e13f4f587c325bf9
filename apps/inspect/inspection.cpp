#include "apps/inspect/inspection.h"

#include <algorithm>

#include "framework/checkpoint/reader.h"
#include "framework/checkpoint/shard_file.h"

namespace fulcrum::apps {
namespace fs = std::filesystem;
using namespace checkpoint;
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;

// Calls fn(first, count) for blocks of rows of about kBlockBytes.
template <class Fn>
void for_row_blocks(const Shape& shape, DType dtype, Fn&& fn) {
  if (shape.numel() == 0) return;
  const std::int64_t row = shape.numel() / shape[0] * size_of(dtype);
  const std::int64_t count = std::max<std::int64_t>(kBlockBytes / row, 1);
  for (std::int64_t first = 0; first < shape[0]; first += count) {
    fn(first, std::min(count, shape[0] - first));
  }
}

Inspection inspect_checkpoint(const fs::path& path, bool verify) {
  CheckpointReader reader(path);
  if (verify) reader.verify();
  Inspection result{reader.folder(), true, reader.files(), reader.attributes(), {}, verify};
  for (const TensorInfo& tensor : reader.tensors()) {
    InspectedTensor inspected{
        tensor.name, tensor.dtype, tensor.shape, static_cast<std::int64_t>(tensor.shards.size()), 0,
        {}};
    for_row_blocks(tensor.shape, tensor.dtype, [&](std::int64_t first, std::int64_t count) {
      inspected.statistics.add(reader.read_rows(tensor.name, first, count));
    });
    result.tensors.push_back(std::move(inspected));
  }
  return result;
}

Inspection inspect_shard_file(const fs::path& path, bool verify) {
  const auto placements = placements_of(path);
  const hdf5::Session session;
  const hdf5::Handle file = hdf5::open_file(path);
  Inspection result{path, false, {}, hdf5::read_attributes(file.get()), {}, verify};
  for (const Placement& placement : placements) {
    const ShardRecord& shard = placement.shard;
    const std::string where = fmt::format("{}: tensor {}", path.string(), shard.name);
    if (verify && !intact(path, placement)) {
      throw IoError(fmt::format("{}: its bytes do not match its checksum", where));
    }
    const Shape shape = placement.shape();
    InspectedTensor inspected{shard.name, shard.dtype, shape, 1, shard.first_row, {}};
    for_row_blocks(shape, shard.dtype, [&](std::int64_t first, std::int64_t count) {
      Shape part = shape;
      part[0] = count;
      const Tensor rows = Tensor::empty(part, shard.dtype);
      read_shard_rows(file.get(), placement, first, rows, where);
      inspected.statistics.add(rows);
    });
    result.tensors.push_back(std::move(inspected));
  }
  return result;
}

}  // namespace

Inspection inspect(const fs::path& path, bool verify) {
  if (!fs::exists(path) || fs::is_directory(path)) return inspect_checkpoint(path, verify);
  if (path.filename() == "index.h5")
    return inspect_checkpoint(fs::absolute(path).parent_path(), verify);
  if (path.extension() != ".h5") {
    throw UserError(
        fmt::format("{}: not a checkpoint; allowed are a folder of checkpoints, one checkpoint, or "
                    "an .h5 file of it",
                    path.string()));
  }
  return inspect_shard_file(path, verify);
}

}  // namespace fulcrum::apps
