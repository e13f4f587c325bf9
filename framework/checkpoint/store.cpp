#include "framework/checkpoint/store.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

#include "framework/checkpoint/folder.h"
#include "framework/checkpoint/index_file.h"
#include "framework/core/file.h"

namespace fulcrum::checkpoint {
namespace fs = std::filesystem;
namespace {

bool is_leftover(const fs::path& path) {
  const std::string name = path.filename().string();
  return path.extension() == ".tmp" && (name.rfind("step-", 0) == 0 || name.rfind(kLatest, 0) == 0);
}

// Where a checkpoint goes that is about to be removed or replaced.
fs::path aside_of(fs::path folder) { return folder += ".old.tmp"; }

void rename_or_throw(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_io("rename to", to, errno);
}

// Swaps two folders at once, so that both names exist at every moment.
bool exchange(const fs::path& a, const fs::path& b) {
  return ::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

// Files of a larger mesh, left by a killed save of the same step.
void remove_strangers(const fs::path& folder, const std::vector<FileEntry>& files) {
  std::set<std::string> known;
  for (const FileEntry& file : files) known.insert(file.file);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (known.count(entry.path().filename().string()) == 0) fs::remove_all(entry.path());
  }
}

void check_files(const fs::path& folder, const std::vector<FileEntry>& files) {
  for (const FileEntry& file : files) {
    std::error_code error;
    const auto bytes = fs::file_size(folder / file.file, error);
    if (error || static_cast<std::int64_t>(bytes) != file.bytes) {
      throw IoError(fmt::format(
          "{}: {}; all ranks must write to one shared folder", (folder / file.file).string(),
          error ? error.message() : fmt::format("{} bytes instead of {}", bytes, file.bytes)));
    }
  }
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path directory, std::int64_t keep)
    : directory_(std::move(directory)), keep_(keep) {}

void CheckpointStore::recover() const {
  if (!fs::exists(directory_)) return;
  const fs::path link = directory_ / kLatest;
  std::error_code error;
  const fs::path target = directory_ / fs::read_symlink(link, error);
  if (!error && !fs::exists(target) && fs::exists(aside_of(target))) {
    rename_or_throw(aside_of(target), target);  // killed while a new save took its name
  }
  if (!fs::is_symlink(link)) {
    const std::vector<StepFolder> complete = step_folders(directory_);
    if (!complete.empty()) point_latest(complete.back().step);
  }
  remove_leftovers({});
}

void CheckpointStore::begin(std::int64_t step) const {
  std::error_code error;
  fs::create_directories(unfinished_folder(directory_, step), error);
  if (error) throw_io("create folder", unfinished_folder(directory_, step), error.value());
  remove_leftovers(unfinished_folder(directory_, step));
}

void CheckpointStore::finalize(std::int64_t step, const std::vector<FileEntry>& files,
                               const Attributes& attributes) const {
  const fs::path folder = unfinished_folder(directory_, step);
  try {
    const std::vector<TensorInfo> tensors = merge_shards(files);
    check_files(folder, files);
    remove_strangers(folder, files);
    Attributes all = attributes;
    all["format"] = kFormat;
    all["step"] = step;
    Marker marker{step, files};
    marker.files.push_back(write_index_file(folder, tensors, all));
    sync_directory(folder);
    write_marker(folder, marker);
    publish(step);
  } catch (...) {
    abort(step);
    throw;
  }
  point_latest(step);
  remove_old(step);
}

void CheckpointStore::abort(std::int64_t step) const noexcept {
  std::error_code ignored;
  fs::remove_all(unfinished_folder(directory_, step), ignored);
}

void CheckpointStore::publish(std::int64_t step) const {
  const fs::path unfinished = unfinished_folder(directory_, step);
  const fs::path finished = step_folder(directory_, step);
  if (!fs::exists(finished)) {
    rename_or_throw(unfinished, finished);
  } else if (exchange(unfinished, finished)) {
    abort(step);  // now the name of what was there before
  } else {
    // A file system that cannot exchange names: there is a moment without this step.
    const fs::path aside = aside_of(finished);
    rename_or_throw(finished, aside);
    rename_or_throw(unfinished, finished);
    std::error_code ignored;
    fs::remove_all(aside, ignored);
  }
  sync_directory(directory_);
}

void CheckpointStore::point_latest(std::int64_t step) const {
  const fs::path temporary = directory_ / (std::string(kLatest) + ".tmp");
  ::unlink(temporary.c_str());
  const fs::path target = step_folder(directory_, step).filename();
  if (::symlink(target.c_str(), temporary.c_str()) != 0) throw_io("create", temporary, errno);
  rename_or_throw(temporary, directory_ / kLatest);
  sync_directory(directory_);
}

void CheckpointStore::remove_leftovers(const fs::path& except) const {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory_)) {
    if (is_leftover(entry.path()) && entry.path() != except) fs::remove_all(entry.path(), ignored);
  }
}

void CheckpointStore::remove_old(std::int64_t step) const {
  if (keep_ <= 0) return;
  std::vector<StepFolder> old;  // newer ones can exist after a return to an older checkpoint
  for (StepFolder& folder : step_folders(directory_)) {
    if (folder.step <= step) old.push_back(std::move(folder));
  }
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep_) < old.size(); ++i) {
    // Renamed first: a kill inside the removal leaves no half checkpoint under a good name.
    const fs::path dying = aside_of(old[i].path);
    std::error_code ignored;
    fs::remove_all(dying, ignored);
    fs::rename(old[i].path, dying, ignored);
    fs::remove_all(dying, ignored);
  }
}

std::optional<std::int64_t> latest_step(const fs::path& directory) {
  std::error_code error;
  const fs::path target = fs::read_symlink(directory / kLatest, error);
  if (error) return std::nullopt;
  for (const StepFolder& folder : step_folders(directory)) {
    if (folder.path.filename() == target.filename()) return folder.step;
  }
  return std::nullopt;
}

}  // namespace fulcrum::checkpoint
