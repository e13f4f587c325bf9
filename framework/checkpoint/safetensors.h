#pragma once
// Writes safetensors files (github.com/huggingface/safetensors): u64 length of a JSON header, the
// header, then the elements of all tensors, little-endian, in the order of the header.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "framework/core/file.h"
#include "framework/core/tensor.h"

namespace fulcrum::checkpoint {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

// The file appears under its name only when finish() has flushed it; a writer that is destroyed
// before removes its temporary file. Throws IoError when the disk is full or fails.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsEntry> entries,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next elements, in the order of the entries; a tensor may come in pieces of rows.
  void append(const Tensor& rows);
  void finish();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::vector<SafetensorsEntry> entries_;
  OutputFile file_;
  std::size_t current_ = 0;    // entry being written
  std::int64_t elements_ = 0;  // of it so far
};

}  // namespace fulcrum::checkpoint
