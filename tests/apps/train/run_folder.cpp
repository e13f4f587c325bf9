#include "apps/train/run_folder.h"

#include <unistd.h>

#include <filesystem>
#include <string>

#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;

TEST_CASE("two runs on one run folder are refused", "[unit][train]") {
  const std::string path =
      std::filesystem::temp_directory_path() / ("fulcrum_run_folder_" + std::to_string(getpid()));
  {
    const RunFolder first(path);
    first.write("config.yaml", "a: 1\n");
    CHECK(std::filesystem::file_size(path + "/config.yaml") == 5);
    try {
      const RunFolder second(path);
      FAIL("a second run was let in");
    } catch (const UserError& error) {
      const std::string message = error.what();
      CHECK(message.find(path) != std::string::npos);
      CHECK(message.find(std::to_string(getpid())) != std::string::npos);
    }
  }
  CHECK_NOTHROW(RunFolder(path));  // free again
  std::filesystem::remove_all(path);
}
