#include "framework/telemetry/metrics.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "framework/core/error.h"
#include "framework/core/file.h"
#include "framework/telemetry/crc32c.h"
#include "framework/telemetry/json_lines.h"
#include "framework/telemetry/tensorboard.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::telemetry;
using fulcrum::testing::contains;
using fulcrum::testing::message_of;
using fulcrum::testing::TemporaryFolder;

namespace {

std::vector<nlohmann::json> lines_of(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// Payloads of a TFRecord file; checks framing and checksums.
std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    REQUIRE(at + 12 <= bytes.size());
    std::uint64_t length = 0;
    std::uint32_t check = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&check, bytes.data() + at + 8, 4);
    CHECK(check == masked_crc32c(bytes.substr(at, 8)));
    REQUIRE(at + 16 + length <= bytes.size());
    records.push_back(bytes.substr(at + 12, length));
    std::memcpy(&check, bytes.data() + at + 12 + length, 4);
    CHECK(check == masked_crc32c(records.back()));
    at += 16 + length;
  }
  return records;
}

}  // namespace

TEST_CASE("CRC-32C of RFC 3720's examples", "[unit][telemetry]") {
  CHECK(crc32c("") == 0u);
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
}

TEST_CASE("metrics reach JSON lines and TensorBoard at once", "[unit][telemetry]") {
  const TemporaryFolder folder;
  Metrics metrics(folder.path().string());
  metrics.log(1, {{"loss", 3.0 + 1e-12}, {"validation/loss", -1.5}});
  metrics.event(2, "skipped", "gradient norm \"inf\"");
  metrics.log(3, {{"loss", std::nan("")}, {"norm", std::numeric_limits<double>::infinity()}});

  const auto lines = lines_of(folder / "metrics.jsonl");  // while the file is still open
  REQUIRE(lines.size() == 3);
  CHECK(lines[0]["step"] == 1);
  CHECK(lines[0]["loss"] == 3.0 + 1e-12);
  CHECK(lines[0]["validation/loss"] == -1.5);
  CHECK(lines[0]["time"] > 1.6e9);
  CHECK(lines[1]["event"] == "skipped");
  CHECK(lines[1]["text"] == "gradient norm \"inf\"");
  CHECK(lines[2]["loss"].is_null());
  CHECK(lines[2]["norm"].is_null());

  std::vector<std::filesystem::path> events;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "tensorboard")) {
    events.push_back(entry.path());
  }
  REQUIRE(events.size() == 1);
  CHECK(events[0].filename().string().rfind("events.out.tfevents.", 0) == 0);
  const auto records = records_of(read_text(events[0]));
  REQUIRE(records.size() == 3);
  CHECK(contains(records[0], "brain.Event:2"));
  CHECK(contains(records[1], "validation/loss"));
}

TEST_CASE("a resumed run drops what it will compute again", "[unit][telemetry]") {
  const TemporaryFolder folder;
  {
    Metrics metrics(folder.path().string());
    for (int step = 1; step <= 5; ++step) metrics.log(step, {{"loss", 1.0 * step}});
  }
  const auto path = folder / "metrics.jsonl";
  OutputFile(path, OutputFile::Mode::append).write("{\"step\":6,\"lo");  // killed inside a line
  {
    Metrics metrics(folder.path().string(), 4);
    metrics.log(4, {{"loss", 40.0}});
  }
  const auto lines = lines_of(path);
  REQUIRE(lines.size() == 4);
  CHECK(lines[2]["step"] == 3);
  CHECK(lines[3]["loss"] == 40.0);
}

TEST_CASE("metrics without a place to go are discarded", "[unit][telemetry]") {
  Metrics metrics;
  metrics.log(1, {{"loss", 1.0}});
  metrics.event(1, "a", "b");
}

TEST_CASE("a metrics file that cannot be made is named", "[unit][telemetry]") {
  const TemporaryFolder folder;
  OutputFile(folder / "run", OutputFile::Mode::truncate).write("a file, not a folder");
  const std::string message = message_of<IoError>([&] { Metrics((folder / "run").string()); });
  CHECK(contains(message, (folder / "run" / "metrics.jsonl").string()));
}

// Not a test: makes the folder that tests/peers/tensorboard_read.py reads.
TEST_CASE("write a metrics folder", "[.peer]") {
  const char* folder = std::getenv("FULCRUM_PEER_FOLDER");
  REQUIRE(folder != nullptr);
  for (const std::int64_t first_step : {std::int64_t{0}, std::int64_t{31}}) {  // stopped, resumed
    Metrics metrics(folder, first_step);
    for (std::int64_t step = first_step + 1; step <= 40; ++step) {
      metrics.log(step, {{"loss", 5.0 / static_cast<double>(step) + first_step},
                         {"learning_rate", 1e-3 * std::cos(0.03 * static_cast<double>(step))}});
      if (step % 10 == 0) metrics.log(step, {{"validation/loss", 4.0 - 0.01 * step}});
    }
  }
}
