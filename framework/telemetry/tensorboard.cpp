#include "framework/telemetry/tensorboard.h"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>

#include "framework/core/error.h"
#include "framework/telemetry/crc32c.h"
#include "framework/telemetry/wire_message.h"

namespace fulcrum::telemetry {
namespace {

static_assert(std::endian::native == std::endian::little, "TFRecord frames are little-endian");

// Field numbers of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
namespace event_field {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary_field {
constexpr int kValue = 1;
constexpr int kTag = 1, kSimpleValue = 2;  // of a value
}  // namespace summary_field
namespace session_log_field {
constexpr int kStatus = 1;
}
constexpr std::uint64_t kSessionStart = 1;

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::filesystem::path new_file(const std::filesystem::path& folder, double now) {
  static std::atomic<int> count{0};
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  std::error_code ignored;  // opening the file reports what matters
  std::filesystem::create_directories(folder, ignored);
  return folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<std::int64_t>(now),
                              host, getpid(), count++);
}

template <class T>
void append(std::string& record, T value) {
  record.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

TensorBoard::TensorBoard(const std::filesystem::path& folder, std::int64_t first_step) {
  const double now = wall_clock();
  file_ = OutputFile(new_file(folder, now), OutputFile::Mode::truncate);
  WireMessage version;
  version.add_double(event_field::kWallTime, now);
  version.add_bytes(event_field::kFileVersion, "brain.Event:2");
  write_record(version.bytes());
  if (first_step > 0) {
    WireMessage session;
    session.add_integer(session_log_field::kStatus, kSessionStart);
    WireMessage start;
    start.add_double(event_field::kWallTime, now);
    start.add_integer(event_field::kStep, static_cast<std::uint64_t>(first_step));
    start.add_bytes(event_field::kSessionLog, session.bytes());
    write_record(start.bytes());
  }
}

void TensorBoard::log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) {
  WireMessage summary;
  for (const Metric& metric : metrics) {
    WireMessage value;
    value.add_bytes(summary_field::kTag, metric.name);
    value.add_float(summary_field::kSimpleValue, static_cast<float>(metric.value));
    summary.add_bytes(summary_field::kValue, value.bytes());
  }
  WireMessage event;
  event.add_double(event_field::kWallTime, wall_time);
  event.add_integer(event_field::kStep, static_cast<std::uint64_t>(step));
  event.add_bytes(event_field::kSummary, summary.bytes());
  write_record(event.bytes());
}

void TensorBoard::write_record(const std::string& payload) {
  std::string record;
  append(record, static_cast<std::uint64_t>(payload.size()));
  append(record, masked_crc32c(record));
  record += payload;
  append(record, masked_crc32c(payload));
  file_.write(record);
}

}  // namespace fulcrum::telemetry
