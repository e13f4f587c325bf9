#include "parallel/watchdog.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "parallel/session.h"

namespace fulcrum::parallel {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

struct Watch::Entry {
  std::string operation;
  std::int64_t bytes;
  std::function<std::string()> detail;
  Clock::time_point start;
};

namespace {

class Watchdog {
 public:
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void set_timeout(double seconds) {
    {
      const std::lock_guard lock(mutex_);
      timeout_ = seconds;
    }
    wake_.notify_all();
  }

  double timeout() {
    const std::lock_guard lock(mutex_);
    return timeout_;
  }

  std::list<Watch::Entry>::iterator add(Watch::Entry entry) {
    const std::lock_guard lock(mutex_);
    start();
    return entries_.insert(entries_.end(), std::move(entry));
  }

  void remove(std::list<Watch::Entry>::iterator entry) {
    const std::lock_guard lock(mutex_);
    entries_.erase(entry);
  }

  std::list<Patrol::Check>::iterator add(Patrol::Check check) {
    const std::lock_guard lock(mutex_);
    start();
    return checks_.insert(checks_.end(), std::move(check));
  }

  void remove(std::list<Patrol::Check>::iterator check) {
    const std::lock_guard lock(mutex_);
    checks_.erase(check);
  }

 private:
  void start() {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      if (timeout_ > 0) {
        const Clock::time_point now = Clock::now();
        for (const Watch::Entry& entry : entries_) {
          const double seconds = Seconds(now - entry.start).count();
          if (seconds > timeout_) report(entry, seconds);
        }
      }
      for (const Patrol::Check& check : checks_) {
        if (const std::string message = check(timeout_); !message.empty()) abort_job(1, message);
      }
      const double period = timeout_ > 0 ? std::clamp(timeout_ / 8, 0.01, 1.0) : 1.0;
      wake_.wait_for(lock, Seconds(period));
    }
  }

  [[noreturn]] void report(const Watch::Entry& entry, double seconds) {
    const std::string detail = entry.detail ? entry.detail() : "";
    abort_job(1, overdue_message(entry.operation, entry.bytes, seconds, detail, timeout_));
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::list<Watch::Entry> entries_;
  std::list<Patrol::Check> checks_;
  double timeout_ = 600.0;
  bool stop_ = false;
  std::thread thread_;
};

Watchdog& watchdog() {
  static Watchdog instance;
  return instance;
}

}  // namespace

void set_hang_timeout(double seconds) { watchdog().set_timeout(seconds); }
double hang_timeout() { return watchdog().timeout(); }

Watch::Watch(std::string operation, std::int64_t bytes, std::function<std::string()> detail)
    : entry_(watchdog().add({std::move(operation), bytes, std::move(detail), Clock::now()})) {}

Watch::~Watch() { watchdog().remove(entry_); }

Patrol::Patrol(Check check) : check_(watchdog().add(std::move(check))) {}
Patrol::~Patrol() { watchdog().remove(check_); }

std::string overdue_message(const std::string& operation, std::int64_t bytes, double seconds,
                            const std::string& detail, double limit) {
  return fmt::format(
      "{} ({} bytes) has not finished after {:.1f} s{}{}. A rank died, fell behind, or "
      "took another path; the limit is parallel.hang_timeout_s = {:g}",
      operation, bytes, seconds, detail.empty() ? "" : ": ", detail, limit);
}

}  // namespace fulcrum::parallel
