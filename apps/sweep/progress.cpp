#include "apps/sweep/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace fulcrum::apps {

std::string duration_text(double seconds) {
  if (seconds < 60.0) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string status_line(const SweepCounts& counts) {
  std::string line =
      fmt::format("{}/{} points done, {} running", counts.done, counts.total, counts.running);
  if (counts.failed > 0) line += fmt::format(", {} failed", counts.failed);
  if (counts.seconds_left >= 0.0)
    line += fmt::format(", {} left", duration_text(counts.seconds_left));
  return line;
}

SweepProgress::SweepProgress(bool quiet)
    : quiet_(quiet), terminal_(!quiet && isatty(STDOUT_FILENO) != 0) {}

SweepProgress::~SweepProgress() { clear(); }

void SweepProgress::clear() {
  if (drawn_.empty()) return;
  std::fputs("\r\033[K", stdout);
  std::fflush(stdout);
  drawn_.clear();
}

void SweepProgress::say(const std::string& line) {
  if (quiet_) return;
  clear();
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void SweepProgress::ended(const PlannedPoint& point, const PointState& state, double loss,
                          bool again, const SweepCounts& counts) {
  std::string line = fmt::format("{}: {}", point.name, name_of(state.status));
  if (state.status == PointStatus::done) line += fmt::format(", loss {:.4f}", loss);
  line += fmt::format(" in {}", duration_text(state.seconds));
  if (!state.message.empty()) line += fmt::format(" ({})", state.message);
  if (again) line += "; tried again";
  say(terminal_ ? line : fmt::format("{}  [{}]", line, status_line(counts)));
}

void SweepProgress::update(const SweepCounts& counts) {
  if (!terminal_) return;
  const std::string line = status_line(counts);
  if (line == drawn_) return;
  std::fputs(("\r\033[K" + line).c_str(), stdout);
  std::fflush(stdout);
  drawn_ = line;
}

}  // namespace fulcrum::apps
