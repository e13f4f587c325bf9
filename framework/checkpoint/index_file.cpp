#include "framework/checkpoint/index_file.h"

#include <algorithm>
#include <array>
#include <map>

#include "framework/core/checksum.h"
#include "framework/core/file.h"

namespace fulcrum::checkpoint {
namespace {

void check_coverage(const TensorInfo& tensor) {
  std::int64_t covered = 0;
  for (const ShardLocation& shard : tensor.shards) {
    FULCRUM_CHECK(shard.first_row == covered,
                  "tensor {} {}: {} holds rows {}..{}, expected from {}", tensor.name, tensor.shape,
                  shard.file, shard.first_row, shard.first_row + shard.rows, covered);
    covered += shard.rows;
  }
  FULCRUM_CHECK(tensor.shape.numel() == 0 || covered == tensor.shape[0],
                "tensor {} {}: no rank wrote rows {}..{}", tensor.name, tensor.shape, covered,
                tensor.shape[0]);
}

void write_virtual_dataset(hid_t file, const TensorInfo& tensor) {
  const hdf5::Handle links(FULCRUM_HDF5(H5Pcreate(H5P_LINK_CREATE), "HDF5"));
  FULCRUM_HDF5(H5Pset_create_intermediate_group(links.get(), 1), "HDF5");
  const hdf5::Handle creation(FULCRUM_HDF5(H5Pcreate(H5P_DATASET_CREATE), "HDF5"));
  const hdf5::Handle type = hdf5::file_type(tensor.dtype);
  const hdf5::Handle space = hdf5::make_space(tensor.shape);
  for (const ShardLocation& shard : tensor.shards) {
    Shape rows = tensor.shape;
    rows[0] = shard.rows;
    const hdf5::Handle source = hdf5::make_space(rows);
    const hdf5::Handle target = hdf5::make_space(tensor.shape);
    hdf5::select_rows(target.get(), tensor.shape, shard.first_row, shard.rows);
    FULCRUM_HDF5(H5Pset_virtual(creation.get(), target.get(), shard.file.c_str(),
                                ("/" + tensor.name).c_str(), source.get()),
                 "cannot map {} of {}", tensor.name, shard.file);
  }
  const hdf5::Handle dataset(
      FULCRUM_HDF5(H5Dcreate2(file, tensor.name.c_str(), type.get(), space.get(), links.get(),
                              creation.get(), H5P_DEFAULT),
                   "cannot create virtual dataset {}", tensor.name));
}

ShardLocation read_mapping(hid_t creation, std::size_t i, const Shape& shape,
                           const std::string& where) {
  std::array<char, 256> file{};
  FULCRUM_HDF5(H5Pget_virtual_filename(creation, i, file.data(), file.size()), "{}", where);
  const hdf5::Handle rows(FULCRUM_HDF5(H5Pget_virtual_vspace(creation, i), "{}", where));
  std::array<hsize_t, H5S_MAX_RANK> first{};
  std::array<hsize_t, H5S_MAX_RANK> last{};
  first[0] = 0;
  last[0] = static_cast<hsize_t>(shape[0] - 1);
  if (H5Sget_select_type(rows.get()) != H5S_SEL_ALL) {
    FULCRUM_HDF5(H5Sget_select_bounds(rows.get(), first.data(), last.data()), "{}", where);
  }
  return {file.data(), static_cast<std::int64_t>(first[0]),
          static_cast<std::int64_t>(last[0] - first[0] + 1)};
}

TensorInfo read_tensor(hid_t file, const std::string& name, const std::string& where) {
  const hdf5::Handle dataset(FULCRUM_HDF5(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "{}", where));
  const hdf5::Handle type(FULCRUM_HDF5(H5Dget_type(dataset.get()), "{}", where));
  const hdf5::Handle space(FULCRUM_HDF5(H5Dget_space(dataset.get()), "{}", where));
  const hdf5::Handle creation(FULCRUM_HDF5(H5Dget_create_plist(dataset.get()), "{}", where));
  TensorInfo tensor{
      name, hdf5::dtype_of_type(type.get(), where), hdf5::shape_of_space(space.get()), {}};
  if (H5Pget_layout(creation.get()) != H5D_VIRTUAL) {
    if (tensor.shape.numel() != 0) throw IoError(fmt::format("{}: not a virtual dataset", where));
    return tensor;
  }
  std::size_t count = 0;
  FULCRUM_HDF5(H5Pget_virtual_count(creation.get(), &count), "{}", where);
  for (std::size_t i = 0; i < count; ++i) {
    tensor.shards.push_back(read_mapping(creation.get(), i, tensor.shape, where));
  }
  std::sort(tensor.shards.begin(), tensor.shards.end(),
            [](const auto& a, const auto& b) { return a.first_row < b.first_row; });
  return tensor;
}

}  // namespace

std::vector<TensorInfo> merge_shards(const std::vector<FileEntry>& files) {
  std::map<std::string, TensorInfo> merged;
  for (const FileEntry& file : files) {
    for (const ShardRecord& shard : file.shards) {
      auto [at, inserted] = merged.try_emplace(
          shard.name, TensorInfo{shard.name, shard.dtype, shard.global_shape, {}});
      TensorInfo& tensor = at->second;
      FULCRUM_CHECK(tensor.dtype == shard.dtype && tensor.shape == shard.global_shape,
                    "tensor {}: {} has {} {}, another rank {} {}", shard.name, file.file,
                    shard.dtype, shard.global_shape, tensor.dtype, tensor.shape);
      if (shard.rows > 0 && tensor.shape.numel() > 0) {
        tensor.shards.push_back({file.file, shard.first_row, shard.rows});
      }
    }
  }
  std::vector<TensorInfo> tensors;
  for (auto& [name, tensor] : merged) {
    std::sort(tensor.shards.begin(), tensor.shards.end(),
              [](const auto& a, const auto& b) { return a.first_row < b.first_row; });
    check_coverage(tensor);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

FileEntry write_index_file(const std::filesystem::path& folder,
                           const std::vector<TensorInfo>& tensors, const Attributes& attributes) {
  const std::filesystem::path path = folder / "index.h5";
  {
    const hdf5::Session session;
    hdf5::Handle file = hdf5::create_file(path);
    for (const auto& [name, value] : attributes) hdf5::write_attribute(file.get(), name, value);
    for (const TensorInfo& tensor : tensors) write_virtual_dataset(file.get(), tensor);
    FULCRUM_HDF5(file.close(), "cannot write {}", path.string());
  }
  OutputFile(path, OutputFile::Mode::update).sync();
  return {"index.h5",
          static_cast<std::int64_t>(std::filesystem::file_size(path)),
          checksum_file(path),
          {}};
}

Index read_index_file(const std::filesystem::path& path) {
  const hdf5::Session session;
  const hdf5::Handle file = hdf5::open_file(path);
  Index index;
  index.attributes = hdf5::read_attributes(file.get());
  for (const std::string& name : hdf5::dataset_names(file.get())) {
    index.tensors.push_back(
        read_tensor(file.get(), name, fmt::format("{}: tensor {}", path.string(), name)));
  }
  return index;
}

}  // namespace fulcrum::checkpoint
