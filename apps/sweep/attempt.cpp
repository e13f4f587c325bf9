#include "apps/sweep/attempt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

namespace fs = std::filesystem;

constexpr double kHeartbeatSeconds = 10.0;
constexpr double kLookSeconds = 1.0;           // between looks at the log
constexpr const char* kAttemptMark = "==== ";  // begins the line that separates attempts in a log
constexpr const char* kRankLost = "noticed that process rank";  // of mpirun and prterun

std::string replaced(std::string text, std::string_view mark, const std::string& value) {
  for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += value.size())
    text.replace(at, mark.size(), value);
  return text;
}

fs::path log_of(const Manifest& manifest, const PlannedPoint& point) {
  return manifest.folder(point) / "log.txt";
}

std::vector<std::string> announced(const fs::path& log, std::vector<std::string> command) {
  std::ofstream(log, std::ios::app)
      << kAttemptMark << utc_now() << fmt::format(" {}\n", fmt::join(command, " "));
  return command;
}

// How what an attempt wrote ends.
struct LogEnd {
  std::string line;        // the last that says something, for the message about a failure
  bool rank_lost = false;  // mpirun said that a rank was killed
};

LogEnd end_of(const fs::path& log) {
  std::ifstream file(log, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const std::streamoff size = file.tellg();
  const std::streamoff take = std::min<std::streamoff>(size, 4096);
  file.seekg(size - take);
  std::string text(static_cast<std::size_t>(take), '\0');
  file.read(text.data(), take);
  // mpirun frames its own messages in dashes.
  std::string last, own;
  bool rank_lost = false;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with(kAttemptMark)) {
      last.clear(), own.clear();
      rank_lost = false;
      continue;
    }
    rank_lost = rank_lost || line.find(kRankLost) != std::string::npos;
    if (line.starts_with("fulcrum: "))
      own = line;
    else if (line.find_first_not_of(" -\t\r") != std::string::npos)
      last = line;
  }
  return {own.empty() ? last : own, rank_lost};
}

}  // namespace

std::vector<std::string> command_of(const Manifest& manifest, const PlannedPoint& point,
                                    const std::string& program) {
  const Execution& execution = manifest.execution;
  const fs::path run_dir = manifest.run_dir(point);
  std::error_code error;
  const bool resume = fs::exists(run_dir, error) && !fs::is_empty(run_dir, error);
  std::vector<std::string> arguments;
  for (std::string argument : execution.command) {
    if (argument == "{resume}") {
      if (resume) arguments.emplace_back("--resume");
      continue;
    }
    argument = replaced(argument, "{fulcrum}", program);
    argument = replaced(argument, "{ranks}", fmt::format("{}", execution.ranks));
    argument = replaced(argument, "{threads}",
                        fmt::format("{}", std::max<std::int64_t>(1, execution.threads)));
    argument =
        replaced(argument, "{grace}", fmt::format("{:.0f}", std::ceil(execution.grace_seconds)));
    argument = replaced(argument, "{config}", (manifest.folder(point) / "config.yaml").string());
    argument = replaced(argument, "{run_dir}", run_dir.string());
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

Attempt::Attempt(const Manifest& manifest, const PlannedPoint& point, const std::string& program)
    : manifest_(&manifest),
      point_(&point),
      state_(read_state(manifest.folder(point))),
      process_(announced(log_of(manifest, point), command_of(manifest, point, program)),
               child_environment(std::max<std::int64_t>(1, manifest.execution.threads)),
               log_of(manifest, point)) {
  state_.status = PointStatus::running;
  state_.message.clear();
  state_.pid = process_.pid();
  state_.host = host_name();
  write_state(manifest.folder(point), state_);
  next_heartbeat_ = kHeartbeatSeconds;
}

std::optional<PointState> Attempt::poll() {
  const double now = process_.seconds();
  if (const std::optional<Ending> ending = process_.poll()) {
    state_ = outcome(*ending);
    write_state(manifest_->folder(*point_), state_);
    return state_;
  }
  const Execution& execution = manifest_->execution;
  if (!stopped_ && !timed_out_ && execution.timeout_minutes > 0.0 &&
      now > 60.0 * execution.timeout_minutes) {
    timed_out_ = true;
    stop_time_ = now;
    process_.terminate();
  }
  if ((stopped_ || timed_out_) && now > stop_time_ + execution.grace_seconds) process_.kill();
  if (now >= next_look_) watch_launcher(now);
  if (now >= next_heartbeat_) {
    next_heartbeat_ = now + kHeartbeatSeconds;
    state_.seconds = now;
    write_state(manifest_->folder(*point_), state_);
  }
  return std::nullopt;
}

void Attempt::watch_launcher(double now) {
  next_look_ = now + kLookSeconds;
  if (stopped_ || timed_out_) return;
  if (!rank_lost_ && end_of(log_of(*manifest_, *point_)).rank_lost) rank_lost_ = now;
  if (rank_lost_ && now >= *rank_lost_ + manifest_->execution.grace_seconds) {
    launcher_hung_ = true;
    process_.kill();
  }
}

void Attempt::stop() {
  if (stopped_) return;
  stopped_ = true;
  if (timed_out_) return;
  stop_time_ = process_.seconds();
  process_.terminate();
}

void Attempt::kill() { process_.kill(); }

PointState Attempt::outcome(const Ending& ending) const {
  PointState next = state_;
  next.seconds = process_.seconds();
  std::string why;
  if (ending.success()) {
    try {
      read_result(*manifest_, *point_);
      next.status = PointStatus::done;
      ++next.attempts;
      return next;
    } catch (const ForeignResult& error) {
      why = fmt::format("{}; `command` may override no key but threads and run_dir", error.what());
    } catch (const IoError& error) {
      why = error.what();
    }
  } else {
    why = launcher_hung_ ? "the launcher did not end" : ending.text();
    const std::string line = end_of(log_of(*manifest_, *point_)).line;
    if (!line.empty()) why += ": " + line;
  }
  if (timed_out_) {
    next.status = PointStatus::timed_out;
    next.message = fmt::format("longer than {:g} minutes", manifest_->execution.timeout_minutes);
    ++next.attempts;
  } else if (stopped_) {
    next.status = PointStatus::pending;
    next.message = "interrupted";
  } else {
    next.status = PointStatus::failed;
    next.message = why;
    ++next.attempts;
  }
  return next;
}

}  // namespace fulcrum::apps
