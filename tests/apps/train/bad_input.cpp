// What goes wrong ends with one message that names file and place, the right exit code, every
// checkpoint in its place, and no hang.

#include <fstream>

#include "framework/checkpoint/folder.h"
#include "framework/checkpoint/store.h"
#include "framework/core/file.h"
#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::testing;

namespace {

// The job ends with the code, and says `parts` in the only message of Fulcrum.
void check_refused(const Finished& job, int code, const std::vector<std::string>& parts) {
  INFO(job.output);
  CHECK(job.exit_code == code);
  CHECK(count(job.output, "fulcrum: ") == 1);
  const std::size_t at = job.output.find("fulcrum: ");
  REQUIRE(at != std::string::npos);
  const std::string message = job.output.substr(at, job.output.find('\n', at) - at);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(contains(message, part));
  }
}

void flip_bit(const std::filesystem::path& path, std::uintmax_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ 4));
}

void append(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

}  // namespace

TEST_CASE("train refuses a wrong configuration", "[cli][train]") {
  const Experiment experiment;
  const std::string file = experiment.config().string();
  SECTION("a misspelt key, on one rank and on two") {
    append(experiment.config(), "checkpiont: {every: 3}\n");
    for (const int ranks : {1, 2}) {
      check_refused(experiment.train(ranks, "run"), 2,
                    {file + ":18:1: ", "checkpiont: unknown key; did you mean checkpoint"});
    }
  }
  SECTION("a wrong type") {
    append(experiment.config(), "checkpoint: {every: often}\n");
    check_refused(experiment.train(1, "run"), 2,
                  {file + ":18:21: ", "checkpoint.every", "integer", "often"});
  }
  SECTION("a batch that the ranks do not divide") {
    check_refused(experiment.train(3, "run"), 2,
                  {"train.global_batch = 8 does not divide by the 3 data ranks"});
  }
  SECTION("micro-batches that do not divide a rank's part") {
    check_refused(experiment.train(2, "run", "--set train.micro_batch=8"), 2,
                  {"train.micro_batch = 8 does not divide the 4 sequences of a rank"});
  }
  SECTION("a vocabulary that is not the tokenizer's") {
    check_refused(
        experiment.train(2, "run", "--set model.vocabulary=300"), 2,
        {"model.vocabulary: 300 does not match the 258 entries", experiment.data().string()});
  }
  SECTION("a sequence longer than the text") {
    check_refused(experiment.train(2, "run", "--set train.sequence_length=1000000"), 2,
                  {experiment.data().string(), "train.sequence_length 1000000"});
  }
  SECTION("no run folder, no data") {
    check_refused(run(FULCRUM_PROGRAM " train " + file), 2, {file + ": run_dir: required"});
    check_refused(experiment.train(1, "run", "--set 'data.path=\"\"'"), 2,
                  {file + ": data.path: required"});
  }
  SECTION("a configuration that is not there") {
    check_refused(run(FULCRUM_PROGRAM " train nowhere.yaml"), 2, {"nowhere.yaml", "No such file"});
  }
  // Nothing was begun.
  CHECK(!checkpoint::latest_step(experiment.checkpoints("run")));
}

TEST_CASE("train refuses damaged token shards", "[cli][train]") {
  const Experiment experiment;
  const auto bin = experiment.data() / "train-00000.bin";
  const std::string name = bin.string();
  const auto bytes = std::filesystem::file_size(bin);
  SECTION("truncated") {
    std::filesystem::resize_file(bin, bytes - 2);
    for (const int ranks : {1, 2})
      check_refused(experiment.train(ranks, "run"), 1, {name, std::to_string(bytes), "truncated"});
  }
  SECTION("a flipped bit") {
    flip_bit(bin, bytes / 2);
    for (const int ranks : {1, 2})
      check_refused(experiment.train(ranks, "run"), 1, {name + ": checksum", "damaged"});
  }
  SECTION("missing") {
    std::filesystem::remove(bin);
    check_refused(experiment.train(2, "run"), 1, {name, "No such file"});
  }
  SECTION("no prepared folder at all") {
    std::filesystem::remove_all(experiment.data());
    check_refused(
        experiment.train(2, "run"), 2,
        {"data.path: " + experiment.data().string() + ": no such folder", "fulcrum prepare"});
  }
  SECTION("a folder of something else") {
    std::filesystem::remove(experiment.data() / "manifest.json");
    check_refused(experiment.train(1, "run"), 2, {"data.path: ", "has no readable manifest.json"});
  }
}

TEST_CASE("train refuses damaged checkpoints and keeps them", "[cli][train]") {
  const Experiment experiment;
  const std::string options = "--set checkpoint.every=2 --set train.steps=4";
  require_ok(experiment.train(2, "run", options));
  const auto folder = experiment.checkpoints("run") / "step-4";
  const auto file = folder / "rank-1.h5";
  const auto bytes = std::filesystem::file_size(file);
  const std::string advice =
      "older good checkpoints in " + experiment.checkpoints("run").string() + ": step-2";
  const std::string resume = options + " --set train.steps=6 --resume";
  SECTION("truncated") {
    std::filesystem::resize_file(file, bytes / 2);
    for (const int ranks : {1, 2})
      check_refused(experiment.train(ranks, "run", resume), 1, {file.string(), "damaged", advice});
  }
  SECTION("a flipped bit") {
    flip_bit(file, bytes - 64);
    for (const int ranks : {1, 2})
      check_refused(experiment.train(ranks, "run", resume), 1,
                    {file.string() + ": checksum", advice});
  }
  SECTION("a file is missing") {
    std::filesystem::remove(file);
    check_refused(experiment.train(2, "run", resume), 1, {file.string(), "No such file", advice});
  }
  SECTION("latest names nothing") {
    std::filesystem::rename(folder, experiment.run_dir("elsewhere"));
    check_refused(experiment.train(2, "run", resume), 1, {"'latest' names step-4", "step-2"});
    // Nor does a new run write over what is left.
    check_refused(experiment.train(2, "run", options), 2,
                  {experiment.run_dir("run").string(), "--resume"});
  }
  SECTION("the advice is followed") {
    flip_bit(file, bytes - 64);
    require_ok(experiment.train(2, "run", resume + " --resume-from step-2"));
    CHECK(checkpoint::damage_of(folder) == "");  // written anew
    CHECK(experiment.steps("run").size() == 6);
    check_refused(experiment.train(2, "run", options + " --resume-from step-3"), 2,
                  {"step-3: no such checkpoint"});
  }
  REQUIRE(std::filesystem::exists(experiment.checkpoints("run") / "step-2"));
  CHECK(checkpoint::damage_of(experiment.checkpoints("run") / "step-2") == "");
}

TEST_CASE("train resumes only the run that saved", "[cli][train]") {
  const Experiment experiment;
  require_ok(experiment.train(1, "run", "--set train.steps=2"));
  const std::string folder = experiment.run_dir("run").string();
  SECTION("without --resume the folder is not touched") {
    for (const int ranks : {1, 2}) {
      check_refused(experiment.train(ranks, "run"), 2,
                    {folder + ": holds checkpoints of an earlier run", "--resume"});
    }
  }
  SECTION("another model, seed or batch") {
    for (const std::string key :
         {"model.width=64", "train.seed=8", "train.global_batch=16", "model.attention.heads=4"}) {
      const auto equals = key.find('=');
      check_refused(experiment.train(2, "run", "--resume --set " + key), 2,
                    {folder + "/checkpoints/step-2", key.substr(0, equals) + " was ",
                     ", is " + key.substr(equals + 1)});
    }
  }
  SECTION("other data") {
    const std::string manifest = read_text(experiment.data() / "manifest.json");
    Experiment other(/*text_seed=*/5);
    std::filesystem::remove_all(experiment.data());
    std::filesystem::copy(other.data(), experiment.data(),
                          std::filesystem::copy_options::recursive);
    REQUIRE(read_text(experiment.data() / "manifest.json") != manifest);
    check_refused(experiment.train(1, "run", "--resume"), 2,
                  {folder + "/checkpoints/step-2", "other data"});
  }
  CHECK(checkpoint::latest_step(experiment.checkpoints("run")) == 2);
  CHECK(checkpoint::damage_of(experiment.checkpoints("run") / "step-2") == "");
  CHECK(experiment.steps("run").size() == 2);
}

TEST_CASE("a disk that is full while saving loses no checkpoint", "[cli][train]") {
  const Experiment experiment;
  const std::string large = model_options("dse") + " --set model.dse.rows_per_head=[100000]";
  require_ok(experiment.train(2, "run", large + " --set train.steps=1"));
  const auto checkpoints = experiment.checkpoints("run");
  REQUIRE(std::filesystem::file_size(checkpoints / "step-1" / "rank-1.h5") > 16'000'000);
  // Rank 1 may write 12 MiB a file at most: enough for what MPI maps, not for its shards. With
  // SIGXFSZ ignored a write fails as on a full disk.
  const std::string train = experiment.command(
      1, "run", large + " --resume --set train.steps=40 --set checkpoint.every=4");
  const Finished job = run(mpirun(1) + train +
                           " : -n 1 bash -c \"trap '' XFSZ; ulimit -f 12288; exec " + train + "\"");
  check_refused(job, 1, {(checkpoints / "step-4.tmp" / "rank-1.h5").string()});
  CHECK(checkpoint::latest_step(checkpoints) == 1);
  CHECK(!std::filesystem::exists(checkpoints / "step-4.tmp"));
  require_ok(experiment.train(2, "run", large + " --resume --set train.steps=6"));
  CHECK(experiment.steps("run").size() == 6);
}

TEST_CASE("two runs cannot share a run folder", "[cli][train]") {
  const Experiment experiment;
  Process first(experiment.command(1, "run", "--set train.steps=100000"),
                experiment.folder() / "first.txt");
  experiment.wait_for_step("run", first);
  for (const std::string resume : {"", "--resume"}) {
    check_refused(experiment.train(2, "run", resume), 2,
                  {experiment.run_dir("run").string() + ": another run is writing here",
                   fmt::format("process {} on ", first.id())});
  }
  CHECK(first.running());
}

TEST_CASE("a run that diverges ends after max_skips steps that change nothing", "[cli][train]") {
  const Experiment experiment;
  const Finished job = experiment.train(
      2, "run",
      model_options("dse") +
          " --set train.steps=60 --set train.guard.max_skips=3"
          " --set train.optimizer.lr=1e30 --set checkpoint.every=1 --set checkpoint.keep=9");
  check_refused(job, 2, {"is not finite", "train.guard.max_skips: 3 steps in a row"});
  CHECK(count(job.output, " skipped: ") == 3);
  // Step 1 ruined the weights, the next were skipped.
  const auto checkpoints = experiment.checkpoints("run");
  CHECK(contains(job.output, "step 2 skipped: "));
  CHECK(contains(job.output, "step 3 skipped: "));
  require_same_tensors(checkpoints / "step-1", checkpoints / "step-2", "trainer/");
  require_same_tensors(checkpoints / "step-2", checkpoints / "step-3", "trainer/");
}
