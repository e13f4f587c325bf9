#include "framework/checkpoint/hdf5.h"

#include <algorithm>
#include <array>

namespace fulcrum::hdf5 {
namespace {

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

// Creation and opening properties shared by all files.
Handle file_access() {
  Handle access(FULCRUM_HDF5(H5Pcreate(H5P_FILE_ACCESS), "HDF5"));
  FULCRUM_HDF5(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_LATEST), "HDF5");
  return access;
}

struct Dims {
  std::array<hsize_t, Shape::kMaxRank> values{};
  explicit Dims(const Shape& shape) { std::copy(shape.begin(), shape.end(), values.begin()); }
};

Handle string_type() {
  Handle type(FULCRUM_HDF5(H5Tcopy(H5T_C_S1), "HDF5"));
  FULCRUM_HDF5(H5Tset_size(type.get(), H5T_VARIABLE), "HDF5");
  FULCRUM_HDF5(H5Tset_cset(type.get(), H5T_CSET_UTF8), "HDF5");
  return type;
}

void write_attribute_data(hid_t object, const std::string& name, hid_t file_type, hid_t memory_type,
                          hid_t space, const void* data) {
  const Handle attribute(
      FULCRUM_HDF5(H5Acreate2(object, name.c_str(), file_type, space, H5P_DEFAULT, H5P_DEFAULT),
                   "cannot create attribute {}", name));
  FULCRUM_HDF5(H5Awrite(attribute.get(), memory_type, data), "cannot write attribute {}", name);
}

// Reads one scalar attribute into `value`; false for kinds that Attributes does not hold.
bool read_scalar(hid_t attribute, const std::string& name, AttributeValue& value) {
  const Handle type(FULCRUM_HDF5(H5Aget_type(attribute), "attribute {}", name));
  const Handle space(FULCRUM_HDF5(H5Aget_space(attribute), "attribute {}", name));
  if (H5Sget_simple_extent_npoints(space.get()) != 1) return false;
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER: {
      std::int64_t integer = 0;
      FULCRUM_HDF5(H5Aread(attribute, H5T_NATIVE_INT64, &integer), "attribute {}", name);
      value = integer;
      return true;
    }
    case H5T_FLOAT: {
      double real = 0.0;
      FULCRUM_HDF5(H5Aread(attribute, H5T_NATIVE_DOUBLE, &real), "attribute {}", name);
      value = real;
      return true;
    }
    case H5T_STRING: {
      if (H5Tis_variable_str(type.get()) <= 0) return false;
      char* text = nullptr;
      const Handle memory = string_type();
      FULCRUM_HDF5(H5Aread(attribute, memory.get(), &text), "attribute {}", name);
      value = std::string(text != nullptr ? text : "");
      H5free_memory(text);
      return true;
    }
    default:
      return false;
  }
}

// Walks by index: the visiting functions of the API changed their types from version to version.
void append_datasets(hid_t group, const std::string& prefix, std::vector<std::string>& names) {
  H5G_info_t info;
  FULCRUM_HDF5(H5Gget_info(group, &info), "cannot list group /{}", prefix);
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto name_at = [&](char* buffer, std::size_t size) {
      return FULCRUM_HDF5(
          H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, buffer, size, H5P_DEFAULT),
          "cannot list group /{}", prefix);
    };
    std::string name(static_cast<std::size_t>(name_at(nullptr, 0)), '\0');
    name_at(name.data(), name.size() + 1);
    const Handle object(
        FULCRUM_HDF5(H5Oopen(group, name.c_str(), H5P_DEFAULT), "cannot open {}{}", prefix, name));
    const H5I_type_t kind = H5Iget_type(object.get());
    if (kind == H5I_DATASET) names.push_back(prefix + name);
    if (kind == H5I_GROUP) append_datasets(object.get(), prefix + name + "/", names);
  }
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  // Handles close themselves. Closing the library at exit adds nothing and can loop over what a
  // damaged file left behind; this must come before the first other call.
  static const herr_t no_exit_handler = H5dont_atexit();
  (void)no_exit_handler;
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() { H5Eset_auto2(H5E_DEFAULT, print_, print_data_); }

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    close();
    id_ = std::exchange(other.id_, -1);
  }
  return *this;
}

Handle::~Handle() {
  if (id_ < 0) return;
  const Session session;
  close();
}

herr_t Handle::close() {
  const hid_t id = std::exchange(id_, -1);
  if (id < 0) return 0;
  switch (H5Iget_type(id)) {
    case H5I_FILE:
      return H5Fclose(id);
    case H5I_GROUP:
      return H5Gclose(id);
    case H5I_DATASET:
      return H5Dclose(id);
    case H5I_DATATYPE:
      return H5Tclose(id);
    case H5I_DATASPACE:
      return H5Sclose(id);
    case H5I_ATTR:
      return H5Aclose(id);
    case H5I_GENPROP_LST:
      return H5Pclose(id);
    default:
      return H5Idec_ref(id);
  }
}

std::string error_text() {
  std::string text = "HDF5 gives no reason";
  const auto visit = [](unsigned, const H5E_error2_t* error, void* data) -> herr_t {
    *static_cast<std::string*>(data) = error->desc != nullptr ? error->desc : "";
    return 1;  // the first entry of an upward walk is the innermost
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  return text;
}

Handle create_file(const std::filesystem::path& path) {
  const Handle access = file_access();
  return Handle(FULCRUM_HDF5(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                             "cannot create {}", path.string()));
}

Handle open_file(const std::filesystem::path& path) {
  const Handle access = file_access();
  return Handle(FULCRUM_HDF5(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "cannot open {}",
                             path.string()));
}

Handle file_type(DType dtype) {
  const auto standard = [&]() -> hid_t {
    switch (dtype) {
      case DType::f64:
        return H5T_IEEE_F64LE;
      case DType::f32:
        return H5T_IEEE_F32LE;
      case DType::i64:
        return H5T_STD_I64LE;
      case DType::i32:
        return H5T_STD_I32LE;
      case DType::u16:
        return H5T_STD_U16LE;
      case DType::u8:
        return H5T_STD_U8LE;
      case DType::bf16:
        break;
    }
    return H5T_IEEE_F32LE;
  }();
  Handle type(FULCRUM_HDF5(H5Tcopy(standard), "HDF5"));
  if (dtype == DType::bf16) {
    // Sign at bit 15, exponent in bits 7 to 14 (bias 127), mantissa below.
    FULCRUM_HDF5(H5Tset_fields(type.get(), 15, 7, 8, 0, 7), "HDF5");
    FULCRUM_HDF5(H5Tset_precision(type.get(), 16), "HDF5");
    FULCRUM_HDF5(H5Tset_size(type.get(), 2), "HDF5");
    FULCRUM_HDF5(H5Tset_ebias(type.get(), 127), "HDF5");
  }
  return type;
}

DType dtype_of_type(hid_t type, const std::string& where) {
  for (const DType dtype :
       {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u16, DType::u8}) {
    if (H5Tequal(type, file_type(dtype).get()) > 0) return dtype;
  }
  throw IoError(fmt::format("{}: the stored type matches no dtype of ours", where));
}

Handle make_space(const Shape& shape) {
  return Handle(FULCRUM_HDF5(H5Screate_simple(shape.rank(), Dims(shape).values.data(), nullptr),
                             "HDF5: no data space of shape {}", shape));
}

Shape shape_of_space(hid_t space) {
  std::array<hsize_t, H5S_MAX_RANK> dims{};
  const int rank = FULCRUM_HDF5(H5Sget_simple_extent_dims(space, dims.data(), nullptr), "HDF5");
  return Shape(std::vector<std::int64_t>(dims.begin(), dims.begin() + rank));
}

void select_rows(hid_t space, const Shape& shape, std::int64_t first, std::int64_t count) {
  Shape start = shape;
  for (int i = 0; i < start.rank(); ++i) start[i] = 0;
  start[0] = first;
  Shape extent = shape;
  extent[0] = count;
  FULCRUM_HDF5(H5Sselect_hyperslab(space, H5S_SELECT_SET, Dims(start).values.data(), nullptr,
                                   Dims(extent).values.data(), nullptr),
               "HDF5: cannot select rows {}..{} of {}", first, first + count, shape);
}

void write_attribute(hid_t object, const std::string& name, const AttributeValue& value) {
  const Handle scalar(FULCRUM_HDF5(H5Screate(H5S_SCALAR), "HDF5"));
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    write_attribute_data(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, scalar.get(), integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    write_attribute_data(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, scalar.get(), real);
  } else {
    const char* text = std::get<std::string>(value).c_str();
    const Handle type = string_type();
    write_attribute_data(object, name, type.get(), type.get(), scalar.get(), &text);
  }
}

void write_attribute(hid_t object, const std::string& name, const Shape& shape) {
  const Handle space = make_space({shape.rank()});
  write_attribute_data(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, space.get(), shape.begin());
}

Attributes read_attributes(hid_t object) {
  Attributes attributes;
  const auto visit = [](hid_t location, const char* name, const H5A_info_t*, void* data) -> herr_t {
    try {
      const Handle attribute(FULCRUM_HDF5(H5Aopen(location, name, H5P_DEFAULT), "{}", name));
      AttributeValue value;
      if (read_scalar(attribute.get(), name, value)) {
        static_cast<Attributes*>(data)->emplace(name, std::move(value));
      }
      return 0;
    } catch (const std::exception&) {
      return -1;
    }
  };
  FULCRUM_HDF5(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &attributes),
               "cannot read attributes");
  return attributes;
}

Shape read_shape_attribute(hid_t object, const std::string& name) {
  const Handle attribute(
      FULCRUM_HDF5(H5Aopen(object, name.c_str(), H5P_DEFAULT), "no attribute {}", name));
  const Handle space(FULCRUM_HDF5(H5Aget_space(attribute.get()), "attribute {}", name));
  std::vector<std::int64_t> dims(
      static_cast<std::size_t>(std::max<hssize_t>(H5Sget_simple_extent_npoints(space.get()), 0)));
  FULCRUM_HDF5(H5Aread(attribute.get(), H5T_NATIVE_INT64, dims.data()), "attribute {}", name);
  return Shape(dims);
}

std::vector<std::string> dataset_names(hid_t file) {
  std::vector<std::string> names;
  const Handle root(FULCRUM_HDF5(H5Gopen2(file, "/", H5P_DEFAULT), "cannot open the root group"));
  append_datasets(root.get(), "", names);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace fulcrum::hdf5
