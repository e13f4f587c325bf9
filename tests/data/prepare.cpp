#include "data/prepare.h"

#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/encode_pipeline.h"
#include "data/prepared_data.h"
#include "data/staging_folder.h"
#include "framework/core/error.h"
#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/data/sample_text.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::data;
using fulcrum::testing::contains;
using fulcrum::testing::message_of;
using fulcrum::testing::sample_text;
using fulcrum::testing::TemporaryFolder;
using fulcrum::testing::write_text;

namespace {

PrepareOptions options_for(const TemporaryFolder& folder, int documents) {
  std::string lines;
  for (int i = 0; i < documents; ++i) {
    std::string text;
    for (const char c : sample_text(60, static_cast<std::uint64_t>(i))) {
      text += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
    }
    lines += "{\"text\": \"" + text + "\"}\n";
  }
  write_text(folder / "in.jsonl", lines);
  PrepareOptions options;
  options.source.inputs = {(folder / "in.jsonl").string()};
  options.training.vocabulary = 450;
  options.valid_fraction = 0.2;
  return options;
}

PrepareResult prepare_into(const PrepareOptions& options, const std::filesystem::path& folder) {
  std::filesystem::create_directory(folder);
  return prepare(options, folder, [](const PrepareProgress&) {});
}

std::vector<std::string> texts_of(const PreparedData& data, const SplitRecord& split) {
  const auto tokenizer = load_tokenizer(data.folder(), data.manifest().tokenizer);
  std::vector<std::string> texts;
  for (const ShardRecord& record : split.shards) {
    const TokenShard shard(data.folder() / record.name);
    for (std::int64_t i = 0; i < shard.documents(); ++i) {
      const auto ids = shard.document(i);
      CHECK(ids.back() == tokenizer->end_of_document());
      texts.push_back(tokenizer->decode(ids));
    }
  }
  return texts;
}

}  // namespace

TEST_CASE("prepare keeps every document, in order and apart", "[unit][data]") {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder, 200);
  options.shard_tokens = 2000;
  for (const auto kind :
       {PrepareOptions::TokenizerKind::train, PrepareOptions::TokenizerKind::bytes}) {
    options.tokenizer = kind;
    const auto out = folder / (kind == PrepareOptions::TokenizerKind::train ? "pieces" : "bytes");
    const PrepareResult result = prepare_into(options, out);
    const PreparedData data(out, Verify::checksums);
    const Manifest& manifest = data.manifest();
    CHECK(manifest.train.shards.size() > 1);
    CHECK(manifest.train.documents + manifest.valid.documents == 200);
    CHECK(manifest.valid.documents > 20);
    CHECK(manifest.valid.documents < 60);
    CHECK(result.manifest.train.tokens == data.stream(Split::train).tokens());
    const auto train = texts_of(data, manifest.train);
    const auto valid = texts_of(data, manifest.valid);
    std::size_t t = 0, v = 0;
    std::int64_t bytes = 0;
    for (std::uint64_t i = 0; i < 200; ++i) {
      const std::string text = sample_text(60, i);
      bytes += static_cast<std::int64_t>(text.size());
      if (t < train.size() && train[t] == text) {
        ++t;
      } else {
        REQUIRE(v < valid.size());
        CHECK(valid[v++] == text);
      }
    }
    CHECK(bytes == manifest.train.bytes + manifest.valid.bytes);
  }
}

TEST_CASE("prepare gives the same bytes on any number of threads", "[unit][data]") {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder, 100);
  std::string first;
  for (const int threads : {1, 3}) {
    options.threads = threads;
    const auto out = folder / std::to_string(threads);
    prepare_into(options, out);
    const std::string manifest =
        read_text(out / kManifestName);  // holds the checksums of all files
    if (first.empty()) first = manifest;
    CHECK(manifest == first);
  }
}

TEST_CASE("validation documents of their own, and a model of the user's", "[unit][data]") {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder, 50);
  write_text(folder / "valid.txt", "the memory of the router");
  options.valid_inputs = {(folder / "valid.txt").string()};
  prepare_into(options, folder / "a");
  const PreparedData data(folder / "a", Verify::checksums);
  CHECK(data.manifest().train.documents == 50);
  CHECK(texts_of(data, data.manifest().valid) ==
        std::vector<std::string>{"the memory of the router"});

  options.tokenizer = PrepareOptions::TokenizerKind::file;
  options.model = folder / "a/tokenizer.model";
  prepare_into(options, folder / "b");
  CHECK(read_text(folder / "b/train-00000.bin") == read_text(folder / "a/train-00000.bin"));
}

TEST_CASE("prepare without documents is refused", "[unit][data]") {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder, 0);
  CHECK_THROWS_AS(prepare_into(options, folder / "a"), UserError);
  options.tokenizer = PrepareOptions::TokenizerKind::bytes;
  CHECK(contains(message_of<UserError>([&] { prepare_into(options, folder / "b"); }),
                 "no documents"));
}

TEST_CASE("a disk that is full ends prepare with the file's name", "[unit][data]") {
  const TemporaryFolder folder;
  PrepareOptions options = options_for(folder, 200);
  options.tokenizer = PrepareOptions::TokenizerKind::bytes;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{20000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = message_of<IoError>([&] { prepare_into(options, folder / "a"); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(message, "train-00000.bin"));
}

TEST_CASE("pipeline hands on the first error of any part", "[unit][data]") {
  const auto tokenizer = make_byte_tokenizer();
  const EncodePipeline pipeline{*tokenizer, 2, 1 << 16};
  int documents = 0;
  const auto read = [&](std::string& text) {
    text.assign(100000, 'x');
    return ++documents < 100;
  };
  const auto keep = [](std::string_view, std::span<const std::int32_t>) {};
  CHECK(message_of<UserError>([&] {
          pipeline.run(
              [&](std::string& text) {
                if (documents == 50) throw UserError("reading");
                return read(text);
              },
              keep);
        }) == "reading");
  documents = 0;
  CHECK(message_of<IoError>([&] {
          pipeline.run(read, [](std::string_view, std::span<const std::int32_t>) {
            throw IoError("writing");
          });
        }) == "writing");
  documents = 0;
  std::int64_t ids = 0;
  pipeline.run(read, [&](std::string_view, std::span<const std::int32_t> part) {
    ids += static_cast<std::int64_t>(part.size());
  });
  CHECK(ids == 99 * 100000);
}

TEST_CASE("staging folder appears whole or not at all", "[unit][data]") {
  const TemporaryFolder folder;
  const auto target = folder / "data";
  {
    const StagingFolder staging(target, false);
    write_text(staging.path() / "x", "half");
  }
  CHECK_FALSE(std::filesystem::exists(target));
  CHECK(std::filesystem::is_empty(folder.path()));

  write_text(folder / "data.incomplete/left", "by a killed process");
  {
    StagingFolder staging(target, false);
    CHECK_FALSE(std::filesystem::exists(staging.path() / "left"));
    CHECK(contains(message_of<UserError>([&] { StagingFolder other(target, false); }),
                   "another prepare"));
    write_text(staging.path() / kManifestName, "1");
    staging.commit();
  }
  CHECK(read_text(target / kManifestName) == "1");
  CHECK(contains(message_of<UserError>([&] { StagingFolder other(target, false); }), "--force"));
  {
    StagingFolder staging(target, true);
    CHECK(read_text(target / kManifestName) == "1");
    write_text(staging.path() / kManifestName, "2");
    staging.commit();
  }
  CHECK(read_text(target / kManifestName) == "2");
  CHECK_FALSE(std::filesystem::exists(folder / "data.incomplete"));
  write_text(folder / "home/letter", "dear");
  CHECK(contains(message_of<UserError>([&] { StagingFolder other(folder / "home", true); }),
                 "other things"));
  CHECK_FALSE(std::filesystem::exists(folder / "home.incomplete"));
}

TEST_CASE("prepare from the command line", "[unit][cli]") {
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const auto run = [&](const std::string& command) {
    const int status = std::system((command + " >" + (folder / "log").string() + " 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  };
  const std::string program = FULCRUM_PROGRAM;
  CHECK(run("printf 'one\\n\\ntwo\\n' | " + program +
            " prepare - --tokenizer bytes --document-bytes 1 --valid-fraction 0 --out " + out) ==
        0);
  CHECK(contains(read_text(folder / "log"), "train: 2 documents"));
  CHECK(PreparedData(out, Verify::checksums).manifest().train.tokens == 11);
  CHECK(run("printf x | " + program + " prepare - --tokenizer bytes --out " + out) == 2);
  CHECK(contains(read_text(folder / "log"), "--force"));
  CHECK(run("yes 'some words to learn from' | head -5000 | " + program +
            " prepare - --vocabulary 290 --json --force --out " + out) == 0);
  CHECK(contains(read_text(folder / "log"), "\"tokenizer\": \"sentencepiece\""));
  CHECK_FALSE(std::filesystem::exists(folder / "out/standard-input.zst"));
  CHECK(run(program + " prepare " + out + "/none --out " + out + "2") == 2);
  CHECK(run(program + " prepare x --tokenizer nonsense --out " + out + "2") == 2);
  CHECK_FALSE(std::filesystem::exists(folder / "out2.incomplete"));
  // Interrupted while it waits for input.
  CHECK(run("sleep 5 | timeout -s INT 0.3 " + program + " prepare - --tokenizer bytes --out " +
            out + "3") == 124);
  CHECK_FALSE(std::filesystem::exists(folder / "out3.incomplete"));
  CHECK_FALSE(std::filesystem::exists(folder / "out3"));
}
