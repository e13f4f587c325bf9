#include "framework/checkpoint/reader.h"

#include <algorithm>

#include "framework/core/checksum.h"

namespace fulcrum::checkpoint {
namespace fs = std::filesystem;
namespace {

std::string steps_text(const std::vector<StepFolder>& folders) {
  std::string text;
  for (const StepFolder& folder : folders) {
    text += (text.empty() ? "" : ", ") + folder.path.filename().string();
  }
  return text;
}

// The folder of one checkpoint that `path` means.
fs::path resolve(const fs::path& path) {
  if (!fs::exists(path)) throw UserError(fmt::format("{}: no such checkpoint", path.string()));
  if (!fs::is_directory(path)) {
    throw UserError(fmt::format("{}: a checkpoint is a folder", path.string()));
  }
  if (path.extension() == ".tmp") {
    throw UserError(
        fmt::format("{}: a save that was not finished; it cannot be used", path.string()));
  }
  const fs::path whole = fs::canonical(path);
  if (fs::exists(path / kMarker) || is_step_folder(whole)) return whole;
  const auto folders = step_folders(path);
  if (folders.empty() && fs::is_symlink(path / "checkpoints" / kLatest)) {
    throw UserError(fmt::format("{}: holds no checkpoint; {} does", path.string(),
                                (path / "checkpoints").string()));
  }
  if (!fs::is_symlink(path / kLatest)) {
    throw UserError(folders.empty()
                        ? fmt::format("{}: holds no checkpoint", path.string())
                        : fmt::format("{}: has no '{}'; name one of its checkpoints: {}",
                                      path.string(), kLatest, steps_text(folders)));
  }
  const fs::path target = path / fs::read_symlink(path / kLatest);
  if (!fs::exists(target)) {
    throw IoError(fmt::format("{}: '{}' names {}, which does not exist; checkpoints here: {}",
                              path.string(), kLatest, target.filename().string(),
                              folders.empty() ? "none" : steps_text(folders)));
  }
  return fs::canonical(target);
}

// Adds to a message about a damaged checkpoint what the user can do.
[[noreturn]] void throw_damaged(const fs::path& folder, const std::string& problem) {
  std::vector<StepFolder> good;
  for (StepFolder& other : step_folders(folder.parent_path())) {
    if (other.path.filename() == folder.filename()) break;  // what follows is newer
    if (damage_of(other.path).empty()) good.push_back(std::move(other));
  }
  throw IoError(fmt::format(
      "{}; {}", problem,
      good.empty() ? "there is no older good checkpoint"
                   : fmt::format("older good checkpoints in {}: {} (name one to continue from it)",
                                 folder.parent_path().string(), steps_text(good))));
}

template <class Fn>
auto or_throw_damaged(const fs::path& folder, Fn&& fn) {
  try {
    return fn();
  } catch (const IoError& error) {
    throw_damaged(folder, error.what());
  }
}

}  // namespace

CheckpointReader::CheckpointReader(const fs::path& path) : folder_(resolve(path)) {
  marker_ = or_throw_damaged(folder_, [&] { return read_marker(folder_); });
  index_ = or_throw_damaged(folder_, [&] {
    for (const FileEntry& file : marker_.files) {
      if (file.file == "index.h5") verify_file(folder_, file);
    }
    return read_index_file(folder_ / "index.h5");
  });
}

void CheckpointReader::verify(int part, int parts) const {
  FULCRUM_CHECK(part >= 0 && part < parts, "part {} of {}", part, parts);
  or_throw_damaged(folder_, [&] {
    for (std::size_t i = static_cast<std::size_t>(part); i < marker_.files.size();
         i += static_cast<std::size_t>(parts)) {
      verify_file(folder_, marker_.files[i]);
    }
  });
}

template <class T>
const T& CheckpointReader::attribute(const std::string& name, const char* kind) const {
  const auto at = index_.attributes.find(name);
  if (at == index_.attributes.end() || !std::holds_alternative<T>(at->second)) {
    throw UserError(
        fmt::format("{}: the checkpoint has no {} called '{}'", folder_.string(), kind, name));
  }
  return std::get<T>(at->second);
}

std::int64_t CheckpointReader::integer(const std::string& name) const {
  return attribute<std::int64_t>(name, "integer");
}
double CheckpointReader::real(const std::string& name) const {
  return attribute<double>(name, "real number");
}
const std::string& CheckpointReader::text(const std::string& name) const {
  return attribute<std::string>(name, "text");
}

bool CheckpointReader::contains(const std::string& name) const {
  const auto at =
      std::lower_bound(index_.tensors.begin(), index_.tensors.end(), name,
                       [](const TensorInfo& t, const std::string& n) { return t.name < n; });
  return at != index_.tensors.end() && at->name == name;
}

const TensorInfo& CheckpointReader::info(const std::string& name) const {
  const auto at =
      std::lower_bound(index_.tensors.begin(), index_.tensors.end(), name,
                       [](const TensorInfo& t, const std::string& n) { return t.name < n; });
  if (at == index_.tensors.end() || at->name != name) {
    throw UserError(fmt::format("{}: the checkpoint has no tensor '{}'", folder_.string(), name));
  }
  return *at;
}

Tensor CheckpointReader::read(const std::string& name) {
  return read_rows(name, 0, info(name).shape[0]);
}

Tensor CheckpointReader::read_rows(const std::string& name, std::int64_t first,
                                   std::int64_t count) {
  const TensorInfo& tensor = info(name);
  FULCRUM_CHECK(first >= 0 && count >= 0 && first + count <= tensor.shape[0],
                "rows {}..{} of tensor {} {}", first, first + count, name, tensor.shape);
  Shape shape = tensor.shape;
  shape[0] = count;
  const Tensor rows = Tensor::empty(shape, tensor.dtype);
  read_rows_into(tensor, first, rows);
  return rows;
}

void CheckpointReader::read_into(const TensorEntry& entry) {
  const TensorInfo& tensor = info(entry.name);
  if (tensor.dtype != entry.value.dtype() || !(tensor.shape == entry.global_shape)) {
    throw UserError(fmt::format("{}: tensor '{}' is {} {} in the checkpoint, {} {} in the model",
                                folder_.string(), entry.name, tensor.dtype, tensor.shape,
                                entry.value.dtype(), entry.global_shape));
  }
  FULCRUM_CHECK(entry.first_row >= 0 && entry.first_row + entry.value.dim(0) <= tensor.shape[0],
                "rows {}..{} of tensor {} {}", entry.first_row,
                entry.first_row + entry.value.dim(0), entry.name, tensor.shape);
  const bool on_host = entry.value.device().is_cpu();
  const Tensor host =
      on_host ? entry.value : Tensor::empty(entry.value.shape(), entry.value.dtype());
  read_rows_into(tensor, entry.first_row, host);
  if (!on_host) entry.value.copy_from(host);
}

void CheckpointReader::read_rows_into(const TensorInfo& tensor, std::int64_t first,
                                      const Tensor& target) {
  if (target.numel() == 0) return;
  const hdf5::Session session;
  const std::int64_t last = first + target.dim(0);
  for (const ShardLocation& shard : tensor.shards) {
    const std::int64_t begin = std::max(first, shard.first_row);
    const std::int64_t end = std::min(last, shard.first_row + shard.rows);
    if (begin >= end) continue;
    const std::string where =
        fmt::format("{}: tensor {}", (folder_ / shard.file).string(), tensor.name);
    or_throw_damaged(folder_, [&] {
      OpenFile& file = open(shard.file);
      const auto placement = file.shards.find(tensor.name);
      if (placement == file.shards.end()) throw IoError(fmt::format("{}: missing", where));
      const Tensor part = target.slice(begin - first, end - first);
      const Placement& stored = placement->second;
      if (stored.shard.rows != shard.rows || stored.shard.dtype != tensor.dtype ||
          !(stored.shard.global_shape == tensor.shape)) {
        throw IoError(fmt::format("{}: {} {} of {}, but the index says {} {} rows of {}", where,
                                  stored.shard.dtype, stored.shape(), stored.shard.global_shape,
                                  tensor.dtype, shard.rows, tensor.shape));
      }
      read_shard_rows(file.handle.get(), stored, begin - shard.first_row, part, where);
      const bool whole = end - begin == shard.rows;
      if (whole &&
          checksum(part.raw(), static_cast<std::size_t>(part.bytes())) != stored.shard.checksum) {
        throw IoError(fmt::format("{}: its bytes do not match its checksum", where));
      }
    });
  }
}

CheckpointReader::OpenFile& CheckpointReader::open(const std::string& name) {
  const auto found = files_.find(name);
  if (found != files_.end()) return found->second;
  OpenFile file;
  for (Placement& placement : placements_of(folder_ / name)) {
    file.shards.emplace(placement.shard.name, std::move(placement));
  }
  file.handle = hdf5::open_file(folder_ / name);
  return files_.emplace(name, std::move(file)).first->second;
}

}  // namespace fulcrum::checkpoint
