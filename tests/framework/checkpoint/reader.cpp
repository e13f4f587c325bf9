#include "framework/checkpoint/reader.h"

#include <unistd.h>

#include <fstream>

#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::checkpoint;
using namespace fulcrum::testing;
namespace fs = std::filesystem;

namespace {

void flip_bit(const fs::path& path, std::int64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const char byte = static_cast<char>(file.get() ^ 4);
  file.seekp(offset);
  file.put(byte);
}

std::int64_t offset_of(const fs::path& file, const std::string& tensor) {
  for (const Placement& placement : placements_of(file)) {
    if (placement.shard.name == tensor) return placement.offset;
  }
  return -1;
}

}  // namespace

TEST_CASE("what was saved is read back, by any split of its rows", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const int ranks = GENERATE(1, 2, 3, 5);
  save_sample(folder.path(), 12, ranks);
  CheckpointReader reader(folder.path());
  CHECK(reader.step() == 12);
  CHECK(reader.integer("step") == 12);
  CHECK(reader.integer("seed") == std::int64_t{1} << 62);
  CHECK(reader.real("loss") == 2.5 / 13);
  CHECK(reader.text("config") == std::get<std::string>(sample_attributes(12).at("config")));
  reader.verify();

  const auto tensors = sample_tensors(12);
  CHECK(reader.tensors().size() == tensors.size());
  for (const TensorEntry& saved : tensors) {
    INFO(saved.name << " saved by " << ranks);
    CHECK(same_bytes(reader.read(saved.name), saved.value));
    for (const int readers : {1, 2, 4}) {
      for (int rank = 0; rank < readers; ++rank) {
        const TensorEntry shard = shards_of({saved}, rank, readers)[0];
        const Tensor target = Tensor::empty_like(shard.value);
        reader.read_into({saved.name, target, saved.global_shape, shard.first_row});
        CHECK(same_bytes(target, shard.value));
      }
    }
  }
}

TEST_CASE("a moved checkpoint keeps working", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder / "a", 3);
  fs::create_directories(folder / "b");
  fs::rename(folder / "a" / "step-3", folder / "b" / "mine");
  CheckpointReader reader(folder / "b" / "mine");
  reader.verify();
  CHECK(same_bytes(reader.read("parameters/norm"), sample_tensors(3)[2].value));
}

TEST_CASE("a tensor that does not fit is named with both shapes", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 1);
  CheckpointReader reader(folder.path());
  const auto read = [&](const std::string& name, const Shape& shape, DType dtype) {
    return message_of<UserError>(
        [&] { reader.read_into(TensorEntry::whole(name, Tensor::zeros(shape, dtype))); });
  };
  const std::string shapes = read("parameters/blocks.0.matrix", {7, 6}, DType::f32);
  CHECK(
      contains(shapes, "'parameters/blocks.0.matrix' is f32 [7, 5] in the checkpoint, f32 [7, 6]"));
  CHECK(contains(read("parameters/norm", {6}, DType::f32), "f64 [6] in the checkpoint, f32 [6]"));
  CHECK(contains(read("parameters/other", {6}, DType::f32), "no tensor 'parameters/other'"));
  CHECK(contains(message_of<UserError>([&] { reader.text("seed"); }), "no text called 'seed'"));
}

TEST_CASE("paths that are no checkpoint", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const auto open = [](const fs::path& path) {
    return message_of<UserError>([&] { CheckpointReader reader(path); });
  };
  CHECK(contains(open(folder / "none"), "no such checkpoint"));
  CHECK(contains(open(folder.path()), "holds no checkpoint"));
  CHECK(contains(open(folder.write("file", "x")), "a checkpoint is a folder"));
  save_sample(folder.path(), 4);
  fs::remove(folder / "latest");
  CHECK(contains(open(folder.path()), "name one of its checkpoints: step-4"));
  fs::create_directories(folder / "step-5.tmp");
  CHECK(contains(open(folder / "step-5.tmp"), "not finished"));
  fs::create_symlink("step-9", folder / "latest");
  CHECK(contains(open(folder.path()),
                 "names step-9, which does not exist; checkpoints here: step-4"));
}

TEST_CASE("damage names the file, the tensor and the older good checkpoints",
          "[unit][checkpoint]") {
  const TemporaryFolder folder;
  for (const std::int64_t step : {1, 2, 3}) save_sample(folder.path(), step);
  flip_bit(folder / "step-1" / "rank-0.h5", 3000);  // an older one that is no better
  const fs::path file = folder / "step-3" / "rank-1.h5";
  const std::string advice =
      "older good checkpoints in " + fs::canonical(folder.path()).string() + ": step-2 (name one";
  const auto open = [&] {
    return message_of<IoError>([&] { CheckpointReader(folder.path()).verify(); });
  };

  SECTION("truncated") {
    fs::resize_file(file, fs::file_size(file) - 1);
    const std::string message =
        message_of<IoError>([&] { CheckpointReader reader(folder.path()); });
    CHECK(contains(message, "rank-1.h5: damaged"));
    CHECK(contains(message, advice));
  }
  SECTION("missing file") {
    fs::remove(file);
    CHECK(contains(open(), "rank-1.h5: No such file"));
  }
  SECTION("missing marker") {
    fs::remove(folder / "step-3" / kMarker);
    CHECK(contains(open(), "not a complete checkpoint"));
    CHECK(contains(open(), advice));
  }
  SECTION("bad marker") {
    OutputFile(folder / "step-3" / kMarker, OutputFile::Mode::truncate).write("{\"format\":1,");
    CHECK(contains(open(), "complete: damaged"));
  }
  SECTION("newer format") {
    OutputFile(folder / "step-3" / kMarker, OutputFile::Mode::truncate).write("{\"format\":99}");
    CHECK(contains(open(), "format 99; this program reads format 1"));
  }
  SECTION("bit flip in a tensor") {
    flip_bit(file, offset_of(file, "parameters/blocks.0.matrix") + 9);
    const std::string message = open();
    CHECK(contains(message, "rank-1.h5: checksum"));
    CHECK(contains(message, "damaged: tensor parameters/blocks.0.matrix"));
    CHECK(contains(message, advice));
    // Reading the shard finds it too, without verify().
    const std::string read = message_of<IoError>(
        [&] { CheckpointReader(folder.path()).read("parameters/blocks.0.matrix"); });
    CHECK(contains(read, "rank-1.h5: tensor parameters/blocks.0.matrix"));
    // The other tensors are good.
    CHECK(same_bytes(CheckpointReader(folder.path()).read("parameters/norm"),
                     sample_tensors(3)[2].value));
  }
  SECTION("bit flips anywhere are found and never crash") {
    const auto size = static_cast<std::int64_t>(fs::file_size(file));
    for (std::int64_t offset = 0; offset < size; offset += 97) {
      flip_bit(file, offset);
      CHECK(contains(open(), "rank-1.h5"));
      flip_bit(file, offset);
    }
    CHECK(open() == "");
  }
  SECTION("bit flip in the index") {
    flip_bit(folder / "step-3" / "index.h5", 2000);
    CHECK(contains(open(), "index.h5: checksum"));
  }
}

TEST_CASE("ranks share the verification", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 1, 3);
  flip_bit(folder / "step-1" / "rank-2.h5", 700);
  int found = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const CheckpointReader reader(folder.path());
    found += message_of<IoError>([&] { reader.verify(rank, 4); }).empty() ? 0 : 1;
  }
  CHECK(found == 1);
}
