#include "data/prepared_data.h"

#include <functional>
#include <string>

#include "framework/core/error.h"
#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::data;
using fulcrum::testing::contains;
using fulcrum::testing::TemporaryFolder;
using fulcrum::testing::write_text;

namespace {

Manifest make_prepared(const std::filesystem::path& folder) {
  Manifest manifest;
  manifest.tokenizer = {"sentencepiece",
                        "tokenizer.model",
                        write_file(folder / "tokenizer.model", "a model"),
                        300,
                        1,
                        2};
  for (SplitRecord* split : {&manifest.train, &manifest.valid}) {
    const std::string name = split == &manifest.train ? "train-00000" : "valid-00000";
    TokenShardWriter writer(folder / name, 300);
    writer.add_document(std::vector<std::int32_t>{5, 6, 1});
    writer.add_document(std::vector<std::int32_t>{7, 1});
    const auto digests = writer.finish();
    split->documents = 2;
    split->tokens = 5;
    split->bytes = 11;
    split->shards = {{name, 2, 5, 11, digests.bin, digests.idx}};
  }
  manifest.sources = {"books/*.txt", "-"};
  manifest.settings = {{"seed", "0"}};
  write_manifest(folder, manifest);
  return manifest;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("manifest comes back as it was written", "[unit][data]") {
  TemporaryFolder folder;
  const Manifest written = make_prepared(folder.path());
  const PreparedData data(folder.path(), Verify::checksums);
  const Manifest& manifest = data.manifest();
  CHECK(manifest.tokenizer.kind == "sentencepiece");
  CHECK(manifest.tokenizer.file == "tokenizer.model");
  CHECK(manifest.tokenizer.digest.checksum == written.tokenizer.digest.checksum);
  CHECK(manifest.tokenizer.end_of_document == 1);
  CHECK(manifest.tokenizer.pad == 2);
  CHECK(data.vocabulary() == 300);
  CHECK(data.record(Split::train).tokens == 5);
  CHECK(data.record(Split::valid).bytes == 11);
  CHECK(data.record(Split::train).shards[0].bin.checksum == written.train.shards[0].bin.checksum);
  CHECK(manifest.sources == written.sources);
  CHECK(manifest.settings == written.settings);
  CHECK(data.stream(Split::train).tokens() == 5);
}

TEST_CASE("a changed prepared folder is refused", "[unit][data]") {
  TemporaryFolder folder;
  make_prepared(folder.path());
  const auto open = [&](Verify verify) {
    return error_of([&] { PreparedData(folder.path(), verify); });
  };
  REQUIRE(open(Verify::checksums).empty());
  for (const std::string name :
       {"train-00000.bin", "valid-00000.bin", "train-00000.idx", "tokenizer.model"}) {
    const std::string content = read_text(folder / name);
    std::string flipped = content;
    flipped[flipped.size() / 2] ^= 4;
    write_text(folder / name, flipped);
    CHECK(open(Verify::sizes).empty());
    CHECK(contains(open(Verify::checksums), name + ": checksum"));
    write_text(folder / name, content.substr(1));
    CHECK(contains(open(Verify::sizes), name + ":"));
    std::filesystem::remove(folder / name);
    CHECK(contains(open(Verify::sizes), name + ": cannot open"));
    write_text(folder / name, content);
  }
}

TEST_CASE("a changed manifest is refused", "[unit][data]") {
  TemporaryFolder folder;
  make_prepared(folder.path());
  const auto path = folder / kManifestName;
  const std::string text = read_text(path);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    write_text(path, changed);
    return error_of([&] { read_manifest(folder.path()); });
  };
  CHECK(contains(with("\"pad\": 2", "\"pad\": 3"), "checksum"));
  CHECK(contains(with("\"version\": 1", "\"version\": 9"), "version 9"));
  CHECK(contains(with("\"splits\"", "\"spilts\""), "manifest.json"));
  CHECK(contains(with("fulcrum-prepared", "something-else"), "not the manifest"));
  write_text(path, text.substr(0, text.size() / 2));
  CHECK(contains(error_of([&] { read_manifest(folder.path()); }), "not a readable manifest"));
  std::filesystem::remove(path);
  CHECK(contains(testing::message_of<UserError>([&] { read_manifest(folder.path()); }),
                 "has no readable manifest.json; `fulcrum prepare`"));
}
