#include "framework/checkpoint/types.h"

#include <nlohmann/json.hpp>

namespace fulcrum::checkpoint {

using Json = nlohmann::json;

std::string FileEntry::to_text() const {
  Json list = Json::array();
  for (const ShardRecord& shard : shards) {
    list.push_back({{"name", shard.name},
                    {"dtype", name_of(shard.dtype)},
                    {"global_shape", std::vector<std::int64_t>(shard.global_shape.begin(),
                                                               shard.global_shape.end())},
                    {"first_row", shard.first_row},
                    {"rows", shard.rows},
                    {"checksum", shard.checksum}});
  }
  return Json{{"file", file}, {"bytes", bytes}, {"checksum", checksum}, {"shards", list}}.dump();
}

FileEntry FileEntry::from_text(const std::string& text) {
  const Json json = Json::parse(text);
  FileEntry entry{json.at("file"), json.at("bytes"), json.at("checksum"), {}};
  for (const Json& shard : json.at("shards")) {
    entry.shards.push_back({shard.at("name"), dtype_from_name(shard.at("dtype")),
                            Shape(shard.at("global_shape").get<std::vector<std::int64_t>>()),
                            shard.at("first_row"), shard.at("rows"), shard.at("checksum")});
  }
  return entry;
}

DType dtype_from_name(const std::string& name) {
  for (const DType dtype :
       {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u16, DType::u8}) {
    if (name == name_of(dtype)) return dtype;
  }
  throw IoError(fmt::format("no dtype is called '{}'", name));
}

}  // namespace fulcrum::checkpoint
