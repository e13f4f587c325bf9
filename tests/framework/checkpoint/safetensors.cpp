#include "framework/checkpoint/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::checkpoint;
using namespace fulcrum::testing;

TEST_CASE("a safetensors file has the published layout", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const Tensor a = normal({3, 5}, 1);
  const Tensor b = normal({7}, 2, DType::bf16);
  {
    SafetensorsWriter writer(
        folder / "m.safetensors",
        {{"a", DType::f32, {3, 5}}, {"none", DType::u8, {0, 2}}, {"b", DType::bf16, {7}}},
        {{"step", "12"}});
    writer.append(a.slice(0, 2));
    writer.append(a.slice(2, 3));
    writer.append(b);
    CHECK(!std::filesystem::exists(folder / "m.safetensors"));
    writer.finish();
  }
  const std::string bytes = fulcrum::read_text(folder / "m.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  REQUIRE(bytes.size() == 8 + length + 60 + 14);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  CHECK(header["__metadata__"]["step"] == "12");
  CHECK(header["a"] ==
        nlohmann::json::parse(R"({"dtype":"F32","shape":[3,5],"data_offsets":[0,60]})"));
  CHECK(header["none"]["data_offsets"] == nlohmann::json::parse("[60,60]"));
  CHECK(header["b"] ==
        nlohmann::json::parse(R"({"dtype":"BF16","shape":[7],"data_offsets":[60,74]})"));
  CHECK(std::memcmp(bytes.data() + 8 + length, a.raw(), 60) == 0);
  CHECK(std::memcmp(bytes.data() + 8 + length + 60, b.raw(), 14) == 0);
}

TEST_CASE("an unfinished safetensors file leaves nothing", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "m", {{"a", DType::f32, {3}}});
    writer.append(Tensor::zeros({2}, DType::f32));
    CHECK_THROWS_AS(writer.append(Tensor::zeros({2}, DType::f32)), InternalError);
    CHECK_THROWS_AS(writer.append(Tensor::zeros({1}, DType::f64)), InternalError);
    CHECK_THROWS_AS(writer.finish(), InternalError);
  }
  CHECK(std::filesystem::is_empty(folder.path()));
}
