#include "apps/sweep/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <thread>

#include "apps/sweep/attempt.h"
#include "apps/sweep/lock.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

namespace fs = std::filesystem;

constexpr auto kPollInterval = std::chrono::milliseconds(50);

bool may_try(const Manifest& manifest, const PointState& state) {
  return state.status != PointStatus::done && state.attempts <= manifest.execution.retries;
}

// A driver that was killed leaves its points in the state `running`. Their processes got SIGTERM
// when it died, so they end soon.
void await_orphan(const Manifest& manifest, const PlannedPoint& point, const PointState& state) {
  if (state.host != host_name()) return;
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::duration<double>(manifest.execution.grace_seconds);
  while (process_runs(static_cast<pid_t>(state.pid), point.id)) {
    if (StopSignals::count() > 0 || std::chrono::steady_clock::now() > deadline)
      throw UserError(
          fmt::format("{}: process {} of an earlier driver still runs the point {}; stop it first",
                      manifest.folder(point).string(), state.pid, point.name));
    std::this_thread::sleep_for(kPollInterval);
  }
}

class Scheduler {
 public:
  Scheduler(const Manifest& manifest, std::vector<const PlannedPoint*> points,
            const std::string& program, SweepProgress& progress)
      : manifest_(manifest), program_(program), progress_(progress) {
    counts_.total = static_cast<std::int64_t>(points.size());
    for (const PlannedPoint* point : points) {
      const bool was_done = read_state(manifest.folder(*point)).status == PointStatus::done;
      const PointState state = checked_state(manifest, *point);
      if (state.status == PointStatus::running) await_orphan(manifest, *point, state);
      if (was_done && state.status != PointStatus::done)
        progress.say(fmt::format("{} is not done: {}", point->name, state.message));
      if (state.status == PointStatus::done)
        ++counts_.done;
      else if (was_done && state.status == PointStatus::pending)
        waiting_.push_back(point);
      // Going on from the checkpoints beside a foreign result would train that configuration on.
      else if (was_done)
        ++counts_.failed;
      else if (may_try(manifest, state))
        waiting_.push_back(point);
      else
        ++counts_.failed;
    }
  }

  bool run() {
    const StopSignals signals;
    while (!running_.empty() || (!waiting_.empty() && !stopping_)) {
      if (!stopping_ && StopSignals::count() > 0) stop();
      if (StopSignals::count() > 1)
        for (const auto& attempt : running_) attempt->kill();
      start_what_fits();
      reap();
      progress_.update(counts());
      std::this_thread::sleep_for(kPollInterval);
    }
    return stopping_;
  }

 private:
  void stop() {
    stopping_ = true;
    if (!running_.empty())
      progress_.say(
          fmt::format("stopping: {} running points write their checkpoints (again to kill them)",
                      running_.size()));
    for (const auto& attempt : running_) attempt->stop();
  }

  void start_what_fits() {
    while (!stopping_ && !waiting_.empty() &&
           static_cast<std::int64_t>(running_.size()) < manifest_.execution.jobs) {
      running_.push_back(std::make_unique<Attempt>(manifest_, *waiting_.front(), program_));
      waiting_.pop_front();
    }
  }

  void reap() {
    for (std::size_t i = 0; i < running_.size();) {
      const std::optional<PointState> state = running_[i]->poll();
      if (!state) {
        ++i;
        continue;
      }
      const PlannedPoint& point = running_[i]->point();
      running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
      const bool again = !stopping_ && may_try(manifest_, *state);
      double loss = 0.0;
      if (state->status == PointStatus::done) {
        loss = read_result(manifest_, point);
        ++counts_.done;
        ++finished_;
        finished_seconds_ += state->seconds;
      } else if (again) {
        waiting_.push_back(&point);
      } else if (state->status != PointStatus::pending) {
        ++counts_.failed;
      }
      progress_.ended(point, *state, loss, again, counts());
    }
  }

  SweepCounts counts() const {
    SweepCounts counts = counts_;
    counts.running = static_cast<std::int64_t>(running_.size());
    if (finished_ > 0) {
      const double each = finished_seconds_ / static_cast<double>(finished_);
      double work = each * static_cast<double>(waiting_.size());
      for (const auto& attempt : running_) work += std::max(0.0, each - attempt->seconds());
      counts.seconds_left = work / static_cast<double>(manifest_.execution.jobs);
    }
    return counts;
  }

  const Manifest& manifest_;
  const std::string& program_;
  SweepProgress& progress_;
  std::deque<const PlannedPoint*> waiting_;
  std::vector<std::unique_ptr<Attempt>> running_;
  SweepCounts counts_;
  std::int64_t finished_ = 0;
  double finished_seconds_ = 0.0;
  bool stopping_ = false;
};

}  // namespace

void share_cores(Execution& execution, std::int64_t cores) {
  const std::int64_t ranks = execution.ranks;
  if (execution.jobs == 0 && execution.threads == 0)
    execution.jobs = std::max<std::int64_t>(1, cores / ranks);
  if (execution.jobs == 0)
    execution.jobs = std::max<std::int64_t>(1, cores / (ranks * execution.threads));
  if (execution.threads == 0)
    execution.threads = std::max<std::int64_t>(1, cores / (ranks * execution.jobs));
}

void settle_folder(const Manifest& planned, bool resume) {
  if (has_manifest(planned.dir)) {
    if (!resume)
      throw UserError(fmt::format(
          "{}: holds a sweep already; --resume continues it, --run-dir names another folder",
          planned.dir.string()));
    const std::string changed = changes(read_manifest(planned.dir), planned);
    if (!changed.empty())
      throw UserError(
          fmt::format("{}: the sweep changed since it began, so it cannot be resumed:\n{}"
                      "  Undo the change, or give another --run-dir.",
                      planned.dir.string(), changed));
  }
  write_manifest(planned);
}

SweepSummary run_points(const Manifest& manifest, const std::string& program,
                        SweepProgress& progress) {
  std::vector<const PlannedPoint*> points;
  for (const PlannedPoint& point : manifest.points) points.push_back(&point);
  const bool interrupted = Scheduler(manifest, points, program, progress).run();
  SweepSummary summary = summarize(manifest);
  summary.interrupted = interrupted;
  return summary;
}

SweepSummary run_point(const Manifest& manifest, std::int64_t index, const std::string& program,
                       SweepProgress& progress) {
  const auto count = static_cast<std::int64_t>(manifest.points.size());
  if (index < 0 || index >= count)
    throw UserError(fmt::format("--point: must lie in [0, {}); found {}", count, index));
  const PlannedPoint& point = manifest.points[static_cast<std::size_t>(index)];
  const FolderLock lock(manifest.folder(point) / "lock", "this point");
  const bool interrupted = Scheduler(manifest, {&point}, program, progress).run();
  Manifest alone = manifest;
  alone.points = {point};
  SweepSummary summary = summarize(alone);
  summary.interrupted = interrupted;
  return summary;
}

SweepSummary summarize(const Manifest& manifest) {
  SweepSummary summary;
  summary.total = static_cast<std::int64_t>(manifest.points.size());
  for (const PlannedPoint& point : manifest.points) {
    const PointState state = checked_state(manifest, point);
    if (state.status == PointStatus::done) {
      ++summary.done;
      continue;
    }
    std::string line = fmt::format("{}: {}", point.name, name_of(state.status));
    if (state.attempts > 0)
      line += fmt::format(" after {} attempt{}", state.attempts, state.attempts == 1 ? "" : "s");
    if (!state.message.empty()) line += fmt::format(" ({})", state.message);
    summary.unfinished.push_back(line);
  }
  return summary;
}

}  // namespace fulcrum::apps
