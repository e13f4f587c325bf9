#include "framework/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "framework/core/error.h"

namespace fulcrum::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::size_t kLongestHeader = 100'000'000;  // what readers accept

std::string upper_case(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return upper;
}

// Length and header, padded so that the elements start at a multiple of eight.
std::string header_of(const std::vector<SafetensorsEntry>& entries,
                      const std::map<std::string, std::string>& metadata, std::int64_t& bytes) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  bytes = 0;
  for (const SafetensorsEntry& entry : entries) {
    FULCRUM_CHECK(!header.contains(entry.name), "two tensors named {}", entry.name);
    const std::int64_t end = bytes + entry.shape.numel() * size_of(entry.dtype);
    header[entry.name] = {
        {"dtype", upper_case(name_of(entry.dtype))},
        {"shape", std::vector<std::int64_t>(entry.shape.begin(), entry.shape.end())},
        {"data_offsets", {bytes, end}}};
    bytes = end;
  }
  std::string text = header.empty() ? "{}" : header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  FULCRUM_CHECK(text.size() <= kLongestHeader, "a safetensors header of {} bytes", text.size());
  const auto length = static_cast<std::uint64_t>(text.size());
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsEntry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), temporary_(path), entries_(std::move(entries)) {
  temporary_ += ".tmp";
  std::int64_t bytes = 0;
  const std::string header = header_of(entries_, metadata, bytes);
  file_ = OutputFile(temporary_, OutputFile::Mode::truncate);
  try {
    file_.reserve(static_cast<std::int64_t>(header.size()) + bytes);
    file_.write(header);
  } catch (...) {
    std::remove(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_.is_open()) std::remove(temporary_.c_str());
}

void SafetensorsWriter::append(const Tensor& rows) {
  while (current_ < entries_.size() && elements_ == entries_[current_].shape.numel()) {
    ++current_;
    elements_ = 0;
  }
  if (rows.numel() == 0) return;
  FULCRUM_CHECK(current_ < entries_.size(), "more elements than the header announces");
  const SafetensorsEntry& entry = entries_[current_];
  FULCRUM_CHECK(rows.dtype() == entry.dtype && elements_ + rows.numel() <= entry.shape.numel(),
                "{} {} into {} {} after {} elements", rows.dtype(), rows.shape(), entry.dtype,
                entry.shape, elements_);
  FULCRUM_CHECK(rows.device().is_cpu(), "{} is on {}", entry.name, rows.device());
  file_.write(rows.raw(), rows.bytes());
  elements_ += rows.numel();
}

void SafetensorsWriter::finish() {
  for (; current_ < entries_.size(); ++current_, elements_ = 0) {
    const SafetensorsEntry& entry = entries_[current_];
    FULCRUM_CHECK(elements_ == entry.shape.numel(), "{} {} has {} elements so far", entry.name,
                  entry.shape, elements_);
  }
  file_.sync();
  file_.close();
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary_.c_str());
    throw_io("create", path_, error);
  }
  sync_directory(path_.parent_path());
}

}  // namespace fulcrum::checkpoint
