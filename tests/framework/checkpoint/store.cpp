#include "framework/checkpoint/store.h"

#include <signal.h>
#include <sys/resource.h>

#include <set>

#include "framework/checkpoint/background_writer.h"
#include "framework/checkpoint/reader.h"
#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::checkpoint;
using namespace fulcrum::testing;
namespace fs = std::filesystem;

namespace {

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

// While it lives, no file of this process can grow beyond a size: a full disk for one file.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const struct rlimit limit { bytes, before_.rlim_max };
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  sighandler_t handler_;
  struct rlimit before_;
};

}  // namespace

TEST_CASE("the newest checkpoints stay, and latest names the last", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  CHECK(!latest_step(folder.path()));
  for (const std::int64_t step : {2, 10, 9, 30}) {
    save_sample(folder.path(), step, 1, 2);
    CHECK(latest_step(folder.path()) == step);
  }
  CHECK(names_in(folder.path()) == std::set<std::string>{"latest", "step-10", "step-30"});
  CHECK(names_in(folder / "step-30") == std::set<std::string>{"complete", "index.h5", "rank-0.h5"});
  CHECK(fs::read_symlink(folder / "latest") == "step-30");
}

TEST_CASE("after a return to an older step newer checkpoints stay", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  for (const std::int64_t step : {10, 20, 30, 15}) save_sample(folder.path(), step, 1, 2);
  CHECK(names_in(folder.path()) ==
        std::set<std::string>{"latest", "step-15", "step-20", "step-30"});
  CHECK(latest_step(folder.path()) == 15);
}

TEST_CASE("a step that is saved again replaces the old one", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 5, 4);
  save_sample(folder.path(), 5, 2);
  CHECK(names_in(folder.path()) == std::set<std::string>{"latest", "step-5"});
  CHECK(names_in(folder / "step-5") ==
        std::set<std::string>{"complete", "index.h5", "rank-0.h5", "rank-1.h5"});
  CHECK(damage_of(folder / "step-5") == "");
}

TEST_CASE("leftovers of killed saves are removed by the next save", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 1);
  folder.write("step-7.tmp/rank-0.h5", "cut");
  folder.write("step-2.tmp/rank-9.h5", "of a larger mesh");
  folder.write("step-0.old.tmp/rank-0.h5", "half removed");
  folder.write("notes.tmp", "not ours");
  save_sample(folder.path(), 2);
  CHECK(names_in(folder.path()) ==
        std::set<std::string>{"latest", "notes.tmp", "step-1", "step-2"});
  CHECK(damage_of(folder / "step-2") == "");
  CHECK(names_in(folder / "step-2").count("rank-9.h5") == 0);
}

TEST_CASE("what a killed run left half done is ended before the next", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const CheckpointStore store(folder.path());
  SECTION("leftovers go though nothing is saved") {
    save_sample(folder.path(), 3);
    folder.write("step-2.old.tmp/rank-0.h5", "half removed");
    folder.write("step-4.tmp/rank-0.h5", "cut");
    fs::create_symlink("step-3", folder / "latest.tmp");
    folder.write("notes.tmp", "not ours");
    store.recover();
    CHECK(names_in(folder.path()) == std::set<std::string>{"latest", "notes.tmp", "step-3"});
  }
  SECTION("a first checkpoint without its link gets it") {
    save_sample(folder.path(), 3);
    fs::remove(folder / "latest");
    store.recover();
    CHECK(latest_step(folder.path()) == 3);
  }
  SECTION("a checkpoint put aside for its replacement comes back") {
    save_sample(folder.path(), 3);
    fs::rename(folder / "step-3", folder / "step-3.old.tmp");
    store.recover();
    CHECK(latest_step(folder.path()) == 3);
    CHECK(damage_of(folder / "step-3") == "");
  }
  SECTION("a link to an older checkpoint stays where it is") {
    save_sample(folder.path(), 3, 1, 2);
    save_sample(folder.path(), 4, 1, 2);
    fs::remove(folder / "latest");
    fs::create_symlink("step-3", folder / "latest");
    store.recover();
    CHECK(latest_step(folder.path()) == 3);
  }
  SECTION("no directory") {
    CheckpointStore(folder / "none").recover();
    CHECK(!fs::exists(folder / "none"));
  }
}

TEST_CASE("shards that leave rows out or overlap are refused", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const CheckpointStore store(folder.path());
  const Tensor rows = Tensor::zeros({2, 3}, DType::f32);
  const auto finalize = [&](std::vector<TensorEntry> first, std::vector<TensorEntry> second) {
    store.begin(1);
    const fs::path unfinished = unfinished_folder(folder.path(), 1);
    const std::vector<FileEntry> files{write_shard_file(unfinished, 0, first, {}),
                                       write_shard_file(unfinished, 1, second, {})};
    return message_of<InternalError>([&] { store.finalize(1, files, {}); });
  };
  CHECK(contains(finalize({{"w", rows, {5, 3}, 0}}, {{"w", rows, {5, 3}, 3}}), "expected from 2"));
  CHECK(contains(finalize({{"w", rows, {4, 3}, 0}}, {{"w", rows, {4, 3}, 0}}), "tensor w"));
  CHECK(contains(finalize({{"w", rows, {5, 3}, 0}}, {{"w", rows, {5, 3}, 2}}),
                 "no rank wrote rows 4..5"));
  CHECK(contains(finalize({{"w", rows, {4, 3}, 0}}, {{"w", rows, {5, 3}, 2}}), "another rank"));
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("a file that a rank wrote elsewhere is missed", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const CheckpointStore store(folder / "shared");
  store.begin(1);
  const FileEntry entry = write_shard_file(folder / "local", 0, sample_tensors(1), {});
  const std::string message = message_of<IoError>([&] { store.finalize(1, {entry}, {}); });
  CHECK(contains(message, "rank-0.h5"));
  CHECK(contains(message, "shared folder"));
}

TEST_CASE("a full disk leaves the checkpoints that are there", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  save_sample(folder.path(), 1);
  const std::vector<TensorEntry> large{
      TensorEntry::whole("parameters/large", Tensor::full({1000, 1000}, 1.0, DType::f32))};
  const CheckpointStore store(folder.path());
  store.begin(2);
  const fs::path unfinished = unfinished_folder(folder.path(), 2);
  std::string message;
  {
    const FileSizeLimit limit(1 << 20);
    BackgroundWriter writer;
    writer.start(unfinished, 0, large, {});
    message = message_of<IoError>([&] { writer.wait(); });
    CHECK(!writer.pending());
  }
  CHECK(contains(message, (unfinished / "rank-0.h5").string()));
  CHECK(contains(message, "3.8 MiB needed"));
  CHECK(contains(message, "free"));
  CHECK(fs::is_empty(unfinished));  // the place of other ranks
  store.abort(2);
  CHECK(!fs::exists(unfinished));
  CHECK(damage_of(folder / "step-1") == "");
  CHECK(latest_step(folder.path()) == 1);
  save_sample(folder.path(), 2);  // there is room again
  CHECK(latest_step(folder.path()) == 2);
}

TEST_CASE("the background writer saves what the tensors were", "[unit][checkpoint]") {
  const TemporaryFolder folder;
  const CheckpointStore store(folder.path());
  BackgroundWriter writer;
  const Tensor weight = Tensor::full({300, 100}, 1.0, DType::f32);
  for (const std::int64_t step : {1, 2}) {
    weight.fill(static_cast<double>(step));
    store.begin(step);
    writer.start(unfinished_folder(folder.path(), step), 0,
                 {TensorEntry::whole("parameters/weight", weight)}, {});
    weight.fill(-1.0);  // training goes on
    CHECK(writer.pending());
    CHECK_THROWS_AS(writer.start(folder.path(), 0, {}, {}), InternalError);
    store.finalize(step, {writer.wait()}, {});
    CHECK(!writer.finished());
    CheckpointReader reader(folder.path());
    CHECK(same_bytes(reader.read("parameters/weight"),
                     Tensor::full({300, 100}, static_cast<double>(step), DType::f32)));
  }
  CHECK_THROWS_AS(writer.wait(), InternalError);
  writer.release();
}
