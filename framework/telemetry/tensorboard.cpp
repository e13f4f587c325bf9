#include "framework/telemetry/tensorboard.h"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>

#include "framework/core/error.h"
#include "framework/telemetry/crc32c.h"
#include "framework/telemetry/tensorboard_event.pb.h"

namespace fulcrum::telemetry {
namespace {

static_assert(std::endian::native == std::endian::little, "TFRecord frames are little-endian");

namespace wire = fulcrum::tensorboard;

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
  wire::Event version;
  version.set_wall_time(now);
  version.set_file_version("brain.Event:2");
  write_record(version.SerializeAsString());
  if (first_step > 0) {
    wire::Event start;
    start.set_wall_time(now);
    start.set_step(first_step);
    start.mutable_session_log()->set_status(wire::SessionLog::START);
    write_record(start.SerializeAsString());
  }
}

void TensorBoard::log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) {
  wire::Event event;
  event.set_wall_time(wall_time);
  event.set_step(step);
  for (const Metric& metric : metrics) {
    wire::Summary::Value* value = event.mutable_summary()->add_value();
    value->set_tag(metric.name);
    value->set_simple_value(static_cast<float>(metric.value));
  }
  write_record(event.SerializeAsString());
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
