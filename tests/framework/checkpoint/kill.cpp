// Checkpoints outlive a kill at any moment. A child process saves in a loop and is killed again and
// again; after every kill `latest` must open, verify and hold what its step wrote.
// FULCRUM_KILLS sets the number of kills (20 by default).

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "framework/checkpoint/background_writer.h"
#include "framework/checkpoint/reader.h"
#include "tests/catch.h"
#include "tests/framework/checkpoint/sample.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::checkpoint;
using namespace fulcrum::testing;

namespace {

constexpr std::int64_t kKeep = 2;

// Saves the steps after `step` until it is killed; every other step is saved twice.
[[noreturn]] void save_for_ever(const std::filesystem::path& directory, std::int64_t step) {
  try {
    for (;; ++step) {
      save_sample(directory, step + 1, 3, kKeep);
      if (step % 2 == 0) save_sample(directory, step + 1, 2, kKeep);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "child: %s\n", error.what());
  }
  _exit(1);
}

bool has_unfinished(const std::filesystem::path& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() == ".tmp") return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a kill at any moment leaves latest good", "[unit][checkpoint][kill]") {
  const char* option = std::getenv("FULCRUM_KILLS");
  const int kills = option != nullptr ? std::atoi(option) : 20;
  const TemporaryFolder folder;
  const Random random(static_cast<std::uint64_t>(getpid()), stream_of("kill"));
  // Moments spread over two saves, however slow the disk is.
  const auto begin = std::chrono::steady_clock::now();
  save_sample(folder.path(), 1, 3, kKeep);
  const std::chrono::duration<double, std::micro> save = std::chrono::steady_clock::now() - begin;
  std::int64_t step = 1;
  int inside = 0;
  for (int kill_number = 0; kill_number < kills; ++kill_number) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) save_for_ever(folder.path(), step);
    const auto index = static_cast<std::uint64_t>(kill_number);
    usleep(static_cast<useconds_t>(2.0 * save.count() * random.uniform(index)));
    REQUIRE(kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));  // it did not stop by itself
    inside += has_unfinished(folder.path()) ? 1 : 0;

    CheckpointReader reader(folder.path());
    reader.verify();
    INFO("kill " << kill_number << " after step " << step << ", latest " << reader.step());
    REQUIRE(reader.step() >= step);
    for (const TensorEntry& saved : sample_tensors(reader.step())) {
      REQUIRE(same_bytes(reader.read(saved.name), saved.value));
    }
    step = reader.step();
    // Every folder under a finished name is good, not only the latest.
    for (const StepFolder& other : step_folders(folder.path()))
      REQUIRE(damage_of(other.path) == "");
  }
  CHECK(inside > 0);  // else no kill met a save
  CHECK(step > 1);    // else no save came to its end
  save_sample(folder.path(), step + 1, 1, kKeep);
  CHECK(!has_unfinished(folder.path()));
  CHECK(step_folders(folder.path()).size() == kKeep);
}
