#include <fstream>
#include <nlohmann/json.hpp>

#include "framework/checkpoint/statistics.h"
#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"
#include "tests/subprocess.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {
Finished fulcrum_run(const std::string& arguments) {
  return run(std::string(FULCRUM_PROGRAM) + " " + arguments);
}
}  // namespace

TEST_CASE("fulcrum inspect lists and verifies a checkpoint", "[cli][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 8, 3);
  const std::string path = folder.path().string();

  const Finished json = fulcrum_run("inspect --json --verify " + path);
  REQUIRE(json.exit_code == 0);
  const auto report = nlohmann::json::parse(json.output);
  CHECK(report["verified"] == true);
  CHECK(report["kind"] == "checkpoint");
  CHECK(report["attributes"]["step"] == 8);
  CHECK(report["attributes"]["config"] == std::get<std::string>(sample_attributes(8).at("config")));
  CHECK(report["files"].size() == 4);
  const auto tensors = sample_tensors(8);
  REQUIRE(report["tensors"].size() == tensors.size());
  for (const auto& tensor : tensors) {
    INFO(tensor.name);
    checkpoint::Statistics expected;
    expected.add(tensor.value);
    bool found = false;
    for (const auto& item : report["tensors"]) {
      if (item["name"] != tensor.name) continue;
      found = true;
      CHECK(item["dtype"] == name_of(tensor.value.dtype()));
      CHECK(item["nan"] == 0);
      if (expected.elements() > 0) {
        CHECK(item["norm"].get<double>() == Approx(expected.norm()).epsilon(1e-12));
        CHECK(item["min"] == expected.min());
        CHECK(item["max"] == expected.max());
      } else {
        CHECK(item["norm"].is_null());
      }
    }
    CHECK(found);
  }

  const Finished text = fulcrum_run("inspect " + path + "/step-8/index.h5");
  CHECK(text.exit_code == 0);
  CHECK(contains(text.output, "parameters/blocks.0.matrix"));
  CHECK(contains(text.output, "checksums not compared"));
  const Finished shard = fulcrum_run("inspect --verify " + path + "/step-8/rank-1.h5");
  CHECK(shard.exit_code == 0);
  CHECK(contains(shard.output, "first row"));
  CHECK(contains(shard.output, "all checksums match"));
  CHECK(fulcrum_run("inspect --attribute step " + path).output == "8\n");
}

TEST_CASE("fulcrum inspect refuses what is damaged or none", "[cli][checkpoint]") {
  const TemporaryFolder folder;
  const Finished missing = fulcrum_run("inspect " + (folder / "none").string());
  CHECK(missing.exit_code == 2);
  CHECK(contains(missing.output, "no such checkpoint"));
  const Finished other = fulcrum_run("inspect " + folder.write("x.txt", "text").string());
  CHECK(other.exit_code == 2);
  const Finished fake = fulcrum_run("inspect " + folder.write("x.h5", "text").string());
  CHECK(fake.exit_code == 1);
  CHECK(contains(fake.output, "x.h5"));

  save_sample(folder.path(), 8, 2);
  const auto file = folder / "step-8" / "rank-0.h5";
  std::int64_t offset = 0;
  for (const auto& placement : checkpoint::placements_of(file)) {
    if (placement.shard.name == "parameters/norm") offset = placement.offset;
  }
  OutputFile(file, OutputFile::Mode::update).write_at(offset + 3, "!", 1);
  for (const auto& path : {folder.path(), file}) {
    const Finished damaged = fulcrum_run("inspect --verify " + path.string());
    CHECK(damaged.exit_code == 1);
    CHECK(contains(damaged.output, "rank-0.h5"));
    CHECK(contains(damaged.output, "tensor parameters/norm"));
  }
}

TEST_CASE("fulcrum export writes the parameters", "[cli][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 8, 2);
  const auto out = folder / "model.safetensors";
  const std::string command = "export " + folder.path().string() + " --out " + out.string();
  const auto header = [&] {
    const std::string bytes = fulcrum::read_text(out);
    return nlohmann::json::parse(
        bytes.substr(8, *reinterpret_cast<const std::uint64_t*>(bytes.data())));
  };
  REQUIRE(fulcrum_run(command).exit_code == 0);
  CHECK(header().size() == 4);  // three parameters and the metadata
  CHECK(header()["norm"]["dtype"] == "F64");
  CHECK(header()["__metadata__"]["step"] == "8");
  REQUIRE(fulcrum_run(command + " --dtype bf16 --buffers").exit_code == 0);
  CHECK(header().size() == 9);
  CHECK(header()["norm"]["dtype"] == "BF16");
  CHECK(header()["counts"]["dtype"] == "I64");
  CHECK(fulcrum_run("export " + folder.path().string() + " --out /nonexistent/m").exit_code == 1);
}

// Not a test: makes the checkpoint that tests/peers/h5py_read.py and safetensors_read.py read.
TEST_CASE("write a checkpoint", "[.peer]") {
  const char* folder = std::getenv("FULCRUM_PEER_FOLDER");
  REQUIRE(folder != nullptr);
  save_sample(folder, 8, 3);
}
