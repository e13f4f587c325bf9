#pragma once
// TensorBoard event files: TFRecord frames (u64 length, its masked CRC-32C, payload, its masked
// CRC-32C; little-endian) that hold protocol buffers of TensorFlow's type Event.
// `tensorboard --logdir RUN` shows the scalars.

#include <filesystem>
#include <string>

#include "framework/core/file.h"
#include "framework/telemetry/metrics.h"

namespace fulcrum::telemetry {

class TensorBoard : public MetricSink {
 public:
  // Starts a new file FOLDER/events.out.tfevents.<seconds>.<host>.<process>.<count>; makes the
  // folder if need be. With first_step > 0 the file tells TensorBoard to forget what earlier files
  // hold from that step on.
  explicit TensorBoard(const std::filesystem::path& folder, std::int64_t first_step = 0);

  void log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) override;
  // TensorBoard's scalar view has no place for events; they are not written.
  void event(std::int64_t, double, std::string_view, std::string_view) override {}

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void write_record(const std::string& payload);

  OutputFile file_;
};

}  // namespace fulcrum::telemetry
