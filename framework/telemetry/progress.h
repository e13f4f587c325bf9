#pragma once
// The progress line of a run.
//
//   step 1200/5000  loss 3.2145  15.3k tokens/s  left 4m10s  expert load 1.12
//
// On a terminal one line is rewritten in place, at most ten times a second; on a pipe or a file a
// plain line appears every log_every steps and at the last one.

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace fulcrum::telemetry {

struct ProgressOptions {
  std::int64_t total_steps = 0;
  std::int64_t first_step = 0;  // steps done before this process
  std::int64_t log_every = 10;
  bool terminal = false;
  std::function<double()> clock;  // seconds; the steady clock by default
};

class Progress {
 public:
  // Shows nothing: for the ranks that stay silent.
  Progress() = default;
  // `out` stays open and must outlive this object.
  Progress(std::FILE* out, ProgressOptions options);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // After a step: steps done so far, its loss and tokens. `extra` is appended to the line.
  void update(std::int64_t step, double loss, std::int64_t tokens, std::string_view extra = {});
  // A line of its own that stays, above the progress line.
  void message(std::string_view text);
  // Ends the rewritten line, so that what follows starts on a fresh one.
  void finish();

  // Recent rate: an average over about the last twenty steps. 0 before the first update.
  double tokens_per_second() const;
  double seconds_left() const;

 private:
  void erase();

  std::FILE* out_ = nullptr;
  ProgressOptions options_;
  std::int64_t step_ = 0;
  std::int64_t updates_ = 0;
  double last_update_ = 0.0;
  double last_draw_ = -1.0;
  double step_seconds_ = 0.0;  // recent averages
  double step_tokens_ = 0.0;
  std::string line_;  // as drawn, still open
};

// True when the stream is a terminal that understands rewriting.
bool is_terminal(std::FILE* stream);

// "850", "15.3k", "1.2M".
std::string short_number(double value);
// "850 B", "12.5 KiB", "3.2 MiB", "1.25 GiB".
std::string bytes_text(std::int64_t bytes);
// "42s", "4m10s", "3h05m", "2d07h".
std::string duration_text(double seconds);

}  // namespace fulcrum::telemetry
