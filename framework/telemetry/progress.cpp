#include "framework/telemetry/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>

namespace fulcrum::telemetry {
namespace {

constexpr double kMemory = 20.0;       // steps in the averages
constexpr double kDrawInterval = 0.1;  // seconds

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Progress::Progress(std::FILE* out, ProgressOptions options)
    : out_(out), options_(std::move(options)), step_(options_.first_step) {
  if (!options_.clock) options_.clock = steady_seconds;
  last_update_ = options_.clock();
}

void Progress::update(std::int64_t step, double loss, std::int64_t tokens, std::string_view extra) {
  if (out_ == nullptr) return;
  const double now = options_.clock();
  const auto steps = static_cast<double>(std::max<std::int64_t>(step - step_, 1));
  ++updates_;
  // A plain mean at first, then an exponential one.
  const double weight = 1.0 / std::min(static_cast<double>(updates_), kMemory);
  step_seconds_ += weight * ((now - last_update_) / steps - step_seconds_);
  step_tokens_ += weight * (static_cast<double>(tokens) / steps - step_tokens_);
  step_ = step;
  last_update_ = now;

  const bool due = options_.terminal ? last_draw_ < 0.0 || now - last_draw_ >= kDrawInterval
                                     : options_.log_every > 0 && step % options_.log_every == 0;
  if (!due && step != options_.total_steps) return;
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  {} tokens/s  left {}{}{}", step, options_.total_steps,
                  loss, short_number(tokens_per_second()), duration_text(seconds_left()),
                  extra.empty() ? "" : "  ", extra);
  erase();
  last_draw_ = now;
  fmt::print(out_, "{}{}", line, options_.terminal ? "" : "\n");
  std::fflush(out_);
  if (options_.terminal) line_ = line;
}

void Progress::message(std::string_view text) {
  if (out_ == nullptr) return;
  const std::string line = line_;
  erase();
  fmt::print(out_, "{}\n{}", text, line);
  std::fflush(out_);
  line_ = line;
}

void Progress::finish() {
  if (line_.empty()) return;
  std::fputc('\n', out_);
  std::fflush(out_);
  line_.clear();
}

void Progress::erase() {
  if (!line_.empty()) fmt::print(out_, "\r\x1b[K");
  line_.clear();
}

double Progress::tokens_per_second() const {
  return step_seconds_ > 0.0 ? step_tokens_ / step_seconds_ : 0.0;
}

double Progress::seconds_left() const {
  return step_seconds_ *
         static_cast<double>(std::max<std::int64_t>(options_.total_steps - step_, 0));
}

namespace {

// mpirun gives its ranks pseudo-terminals and passes on what they print: whether a person watches
// is a question about mpirun's own standard output.
bool launcher_has_terminal() {
  std::error_code error;
  const auto target =
      std::filesystem::read_symlink("/proc/" + std::to_string(getppid()) + "/fd/1", error).string();
  return target.starts_with("/dev/pts/") || target.starts_with("/dev/tty");
}

}  // namespace

bool is_terminal(std::FILE* stream) {
  const char* kind = std::getenv("TERM");
  if (isatty(fileno(stream)) == 0 || kind == nullptr || std::string_view(kind) == "dumb")
    return false;
  return std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr || launcher_has_terminal();
}

std::string short_number(double value) {
  const char* const suffixes[] = {"", "k", "M", "G", "T"};
  int i = 0;
  for (; std::abs(value) >= 999.5 && i < 4; ++i) value /= 1000.0;
  return i == 0 ? fmt::format("{:.0f}", value) : fmt::format("{:.1f}{}", value, suffixes[i]);
}

std::string bytes_text(std::int64_t bytes) {
  const auto n = static_cast<double>(bytes);
  if (n >= 1 << 30) return fmt::format("{:.2f} GiB", n / (1 << 30));
  if (n >= 1 << 20) return fmt::format("{:.1f} MiB", n / (1 << 20));
  if (n >= 1 << 10) return fmt::format("{:.1f} KiB", n / (1 << 10));
  return fmt::format("{} B", bytes);
}

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

}  // namespace fulcrum::telemetry
