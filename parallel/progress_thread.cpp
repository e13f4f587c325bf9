#include "parallel/progress_thread.h"

#include <chrono>
#include <condition_variable>
#include <iterator>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/operation.h"

namespace fulcrum::parallel {
namespace {

// Short against the transfer of a bucket, long against a poll (some microseconds).
constexpr auto kPollPeriod = std::chrono::microseconds(50);

class ProgressThread {
 public:
  ~ProgressThread() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void follow(std::shared_ptr<Operation> operation) {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    arrived_.push_back(std::move(operation));
    wake_.notify_all();
  }

 private:
  // Done, or failed: then whoever waits for it gets the error.
  static bool over(const std::shared_ptr<Operation>& operation) {
    try {
      return operation->advance();
    } catch (...) {
      return true;
    }
  }

  void run() {
    std::vector<std::shared_ptr<Operation>> followed;
    std::unique_lock lock(mutex_);
    while (!stop_) {
      if (followed.empty()) wake_.wait(lock, [this] { return stop_ || !arrived_.empty(); });
      std::move(arrived_.begin(), arrived_.end(), std::back_inserter(followed));
      arrived_.clear();
      lock.unlock();
      std::erase_if(followed, over);
      if (!followed.empty()) std::this_thread::sleep_for(kPollPeriod);
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Operation>> arrived_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace

void follow(const Request& request) {
  if (request.operation() == nullptr) return;
  static ProgressThread thread;
  thread.follow(request.operation());
}

}  // namespace fulcrum::parallel
