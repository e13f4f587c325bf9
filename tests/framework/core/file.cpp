#include "framework/core/file.h"

#include <signal.h>
#include <sys/resource.h>

#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using fulcrum::testing::contains;
using fulcrum::testing::message_of;
using fulcrum::testing::TemporaryFolder;

TEST_CASE("files are written, appended to and patched", "[unit][core]") {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  {
    OutputFile file(path, OutputFile::Mode::truncate);
    file.write("hello");
    file.sync();
    file.close();
    CHECK(!file.is_open());
  }
  OutputFile(path, OutputFile::Mode::append).write(" world");
  OutputFile(path, OutputFile::Mode::update).write_at(6, "W", 1);
  CHECK(read_text(path) == "hello World");
  replace_file(path, "new");
  CHECK(read_text(path) == "new");
  CHECK(!std::filesystem::exists(folder / "a.tmp"));
}

TEST_CASE("file errors name the file and the reason", "[unit][core]") {
  const TemporaryFolder folder;
  const auto missing = folder / "no" / "file";
  CHECK(contains(message_of<IoError>([&] { OutputFile(missing, OutputFile::Mode::truncate); }),
                 "cannot create " + missing.string() + ": No such file"));
  CHECK(contains(message_of<IoError>([&] { read_text(missing); }), missing.string()));
  CHECK_THROWS_AS(OutputFile(folder / "x", OutputFile::Mode::update), IoError);
}

TEST_CASE("reserve says what is needed and what is free", "[unit][core]") {
  const TemporaryFolder folder;
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 4096, before.rlim_max };
  setrlimit(RLIMIT_FSIZE, &small);
  OutputFile file(folder / "big", OutputFile::Mode::truncate);
  const std::string message = message_of<IoError>([&] { file.reserve(1 << 20); });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  CHECK(contains(message, (folder / "big").string()));
  CHECK(contains(message, "1.0 MiB needed"));
  CHECK(contains(message, "free"));
}

TEST_CASE("sizes in words", "[unit][core]") {
  CHECK(size_text(0) == "0 bytes");
  CHECK(size_text(1536) == "1.5 KiB");
  CHECK(size_text(std::int64_t{3} << 40) == "3.0 TiB");
}
