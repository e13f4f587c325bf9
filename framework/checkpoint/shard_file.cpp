#include "framework/checkpoint/shard_file.h"

#include <algorithm>
#include <fstream>

#include "framework/core/checksum.h"
#include "framework/core/file.h"

namespace fulcrum::checkpoint {
namespace {

constexpr std::int64_t kBlock = std::int64_t{4} << 20;
constexpr std::int64_t kMetadataBytes = 2048;  // generous, for each dataset

void check_entry(const TensorEntry& entry) {
  const Tensor& value = entry.value;
  FULCRUM_CHECK(!entry.name.empty() && entry.name.front() != '/' && entry.name.back() != '/',
                "a tensor cannot be called '{}'", entry.name);
  FULCRUM_CHECK(value.defined() && value.rank() >= 1 && value.rank() == entry.global_shape.rank(),
                "{}: a shard {} of {}", entry.name, value.shape(), entry.global_shape);
  FULCRUM_CHECK(value.device().is_cpu(), "{} is on {}", entry.name, value.device());
  FULCRUM_CHECK(
      std::equal(value.shape().begin() + 1, value.shape().end(), entry.global_shape.begin() + 1) &&
          entry.first_row >= 0 && entry.first_row + value.dim(0) <= entry.global_shape[0],
      "{}: a shard {} at row {} of {}", entry.name, value.shape(), entry.first_row,
      entry.global_shape);
}

// Creates the dataset with its attributes and space, and returns the offset of its bytes.
std::int64_t create_dataset(hid_t file, const TensorEntry& entry, std::uint64_t checksum) {
  const hdf5::Handle links(FULCRUM_HDF5(H5Pcreate(H5P_LINK_CREATE), "HDF5"));
  FULCRUM_HDF5(H5Pset_create_intermediate_group(links.get(), 1), "HDF5");
  const hdf5::Handle creation(FULCRUM_HDF5(H5Pcreate(H5P_DATASET_CREATE), "HDF5"));
  FULCRUM_HDF5(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "HDF5");
  FULCRUM_HDF5(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "HDF5");
  const hdf5::Handle type = hdf5::file_type(entry.value.dtype());
  const hdf5::Handle space = hdf5::make_space(entry.value.shape());
  const hdf5::Handle dataset(
      FULCRUM_HDF5(H5Dcreate2(file, entry.name.c_str(), type.get(), space.get(), links.get(),
                              creation.get(), H5P_DEFAULT),
                   "cannot create dataset {}", entry.name));
  hdf5::write_attribute(dataset.get(), "checksum", checksum_text(checksum));
  hdf5::write_attribute(dataset.get(), "first_row", entry.first_row);
  hdf5::write_attribute(dataset.get(), "global_shape", entry.global_shape);
  const haddr_t offset = H5Dget_offset(dataset.get());
  return offset == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(offset);
}

// Everything but the elements. Returns the offset of each entry.
std::vector<std::int64_t> write_metadata(const std::filesystem::path& path,
                                         const std::vector<TensorEntry>& entries,
                                         const std::vector<ShardRecord>& shards,
                                         const Attributes& attributes) {
  const hdf5::Session session;
  hdf5::Handle file = hdf5::create_file(path);
  for (const auto& [name, value] : attributes) hdf5::write_attribute(file.get(), name, value);
  std::vector<std::int64_t> offsets;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    offsets.push_back(create_dataset(file.get(), entries[i], shards[i].checksum));
  }
  FULCRUM_HDF5(file.close(), "cannot write {}", path.string());
  return offsets;
}

FileEntry write(const std::filesystem::path& path, const std::vector<TensorEntry>& entries,
                const Attributes& attributes) {
  FileEntry result;
  result.file = path.filename().string();
  std::int64_t needed = 0;
  for (const TensorEntry& entry : entries) {
    check_entry(entry);
    const Tensor& value = entry.value;
    result.shards.push_back({entry.name, value.dtype(), entry.global_shape, entry.first_row,
                             value.dim(0),
                             checksum(value.raw(), static_cast<std::size_t>(value.bytes()))});
    needed += value.bytes() + kMetadataBytes;
  }

  // A disk without room shows here, with a clear message, before HDF5 writes.
  OutputFile(path, OutputFile::Mode::truncate).reserve(needed);
  const auto offsets = write_metadata(path, entries, result.shards, attributes);
  result.bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
  OutputFile file(path, OutputFile::Mode::update);
  file.reserve(result.bytes);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Tensor& value = entries[i].value;
    if (value.bytes() > 0) file.write_at(offsets[i], value.raw(), value.bytes());
  }
  file.sync();
  file.close();

  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!intact(path, {result.shards[i], offsets[i], entries[i].value.bytes()})) {
      throw IoError(fmt::format("{}: tensor {} reads back differently from what was written",
                                path.string(), entries[i].name));
    }
  }
  result.checksum = checksum_file(path);
  return result;
}

}  // namespace

std::string shard_file_name(int rank) { return fmt::format("rank-{}.h5", rank); }

FileEntry write_shard_file(const std::filesystem::path& folder, int rank,
                           const std::vector<TensorEntry>& entries, const Attributes& attributes) {
  std::error_code ignored;  // creating the file reports what matters
  std::filesystem::create_directories(folder, ignored);
  const std::filesystem::path path = folder / shard_file_name(rank);
  try {
    return write(path, entries, attributes);
  } catch (...) {
    std::filesystem::remove(path, ignored);
    throw;
  }
}

std::vector<Placement> placements_of(const std::filesystem::path& path) {
  const hdf5::Session session;
  const hdf5::Handle file = hdf5::open_file(path);
  std::vector<Placement> placements;
  for (const std::string& name : hdf5::dataset_names(file.get())) {
    const std::string where = fmt::format("{}: tensor {}", path.string(), name);
    const hdf5::Handle dataset(
        FULCRUM_HDF5(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT), "{}", where));
    const hdf5::Handle type(FULCRUM_HDF5(H5Dget_type(dataset.get()), "{}", where));
    const hdf5::Handle space(FULCRUM_HDF5(H5Dget_space(dataset.get()), "{}", where));
    const Attributes attributes = hdf5::read_attributes(dataset.get());
    const Shape shape = hdf5::shape_of_space(space.get());
    Placement placement;
    try {
      placement.shard = {
          name,
          hdf5::dtype_of_type(type.get(), where),
          hdf5::read_shape_attribute(dataset.get(), "global_shape"),
          std::get<std::int64_t>(attributes.at("first_row")),
          shape[0],
          std::stoull(std::get<std::string>(attributes.at("checksum")), nullptr, 16)};
      FULCRUM_REQUIRE(placement.shape() == shape, "{} of {}", shape, placement.shard.global_shape);
    } catch (
        const std::exception& error) {  // a missing or malformed attribute, a shape without rows
      throw IoError(fmt::format("{}: not a shard of a checkpoint ({})", where, error.what()));
    }
    const haddr_t offset = H5Dget_offset(dataset.get());
    placement.offset = offset == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(offset);
    placement.bytes = shape.numel() * size_of(placement.shard.dtype);
    placements.push_back(std::move(placement));
  }
  return placements;
}

void read_shard_rows(hid_t file, const Placement& placement, std::int64_t first,
                     const Tensor& target, const std::string& where) {
  if (target.numel() == 0) return;
  const hdf5::Handle dataset(
      FULCRUM_HDF5(H5Dopen2(file, placement.shard.name.c_str(), H5P_DEFAULT), "{}", where));
  const hdf5::Handle stored(FULCRUM_HDF5(H5Dget_space(dataset.get()), "{}", where));
  hdf5::select_rows(stored.get(), placement.shape(), first, target.dim(0));
  const hdf5::Handle memory = hdf5::make_space(target.shape());
  const hdf5::Handle type = hdf5::file_type(placement.shard.dtype);
  FULCRUM_HDF5(
      H5Dread(dataset.get(), type.get(), memory.get(), stored.get(), H5P_DEFAULT, target.raw()),
      "{}", where);
}

bool intact(const std::filesystem::path& path, const Placement& placement) {
  Checksum sum;
  std::ifstream file(path, std::ios::binary);
  if (placement.bytes > 0) file.seekg(placement.offset);
  std::vector<char> block(static_cast<std::size_t>(std::min(kBlock, placement.bytes)));
  for (std::int64_t done = 0; done < placement.bytes;) {
    const std::int64_t n = std::min(kBlock, placement.bytes - done);
    if (!file.read(block.data(), n)) return false;
    sum.update(block.data(), static_cast<std::size_t>(n));
    done += n;
  }
  return sum.digest() == placement.shard.checksum;
}

}  // namespace fulcrum::checkpoint
