#pragma once
// The thin layer over the C API of HDF5 that checkpoints use: handles that close themselves, errors
// as exceptions, types, attributes.
//
// HDF5 keeps global state. Every sequence of calls runs inside a Session, which holds a
// process-wide lock (the background writer has a thread of its own) and keeps HDF5 from printing to
// stderr.

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "framework/core/dtype.h"
#include "framework/core/error.h"
#include "framework/core/shape.h"

namespace fulcrum::hdf5 {

class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

// Any HDF5 identifier; closed with the function that fits its kind.
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Handle& operator=(Handle&& other) noexcept;
  ~Handle();

  hid_t get() const { return id_; }
  // For files: closes now, and returns HDF5's status (closing is when metadata is written).
  herr_t close();

 private:
  hid_t id_ = -1;
};

// Innermost entry of HDF5's error stack.
std::string error_text();

// Files in the format of HDF5 1.10, whose metadata carries checksums.
Handle create_file(const std::filesystem::path& path);
Handle open_file(const std::filesystem::path& path);

// bf16 becomes a 16-bit floating-point type with 8 bits of exponent, which HDF5 (and so h5py)
// converts to float by itself.
Handle file_type(DType dtype);
// The dtype of a stored type; IoError naming `where` when no dtype matches.
DType dtype_of_type(hid_t type, const std::string& where);

Handle make_space(const Shape& shape);
Shape shape_of_space(hid_t space);
// Selects rows first..first+count of a space of this shape.
void select_rows(hid_t space, const Shape& shape, std::int64_t first, std::int64_t count);

using AttributeValue = std::variant<std::int64_t, double, std::string>;
using Attributes = std::map<std::string, AttributeValue>;

void write_attribute(hid_t object, const std::string& name, const AttributeValue& value);
void write_attribute(hid_t object, const std::string& name, const Shape& shape);
Attributes read_attributes(hid_t object);  // scalars; others are left out
Shape read_shape_attribute(hid_t object, const std::string& name);

// Full names, without the leading slash, of the datasets of a file, in alphabetical order.
std::vector<std::string> dataset_names(hid_t file);

}  // namespace fulcrum::hdf5

// Evaluates an HDF5 call and throws IoError "<message>: <what HDF5 says>" when it fails.
//   const Handle file(FULCRUM_HDF5(H5Fopen(…), "cannot open {}", path));
#define FULCRUM_HDF5(call, ...)                                                                \
  [&] {                                                                                        \
    const auto fulcrum_hdf5_result = (call);                                                   \
    if (fulcrum_hdf5_result < 0)                                                               \
      throw ::fulcrum::IoError(                                                                \
          ::fmt::format("{}: {}", ::fmt::format(__VA_ARGS__), ::fulcrum::hdf5::error_text())); \
    return fulcrum_hdf5_result;                                                                \
  }()
