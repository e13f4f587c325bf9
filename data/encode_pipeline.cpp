#include "data/encode_pipeline.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

constexpr std::int64_t kBatchBytes = std::int64_t{1} << 18;

struct TextBatch {
  std::int64_t number = 0;
  std::int64_t bytes = 0;
  std::vector<std::string> texts;
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> ends;  // of each document in ids
};

class Channel {
 public:
  explicit Channel(std::int64_t limit) : limit_(limit) {}

  // Waits for room; false when the work has failed.
  bool push(TextBatch batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [&] { return error_ || in_flight_ == 0 || in_flight_ + batch.bytes <= limit_; });
    if (error_) return false;
    batch.number = pushed_++;
    in_flight_ += batch.bytes;
    waiting_.push_back(std::move(batch));
    changed_.notify_all();
    return true;
  }
  void finish_input() {
    const std::lock_guard lock(mutex_);
    input_done_ = true;
    changed_.notify_all();
  }
  // A batch to encode; false when there is no more.
  bool pop(TextBatch& batch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return error_ || input_done_ || !waiting_.empty(); });
    if (error_ || waiting_.empty()) return false;
    batch = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }
  void put_encoded(TextBatch batch) {
    const std::lock_guard lock(mutex_);
    const std::int64_t number = batch.number;
    encoded_.emplace(number, std::move(batch));
    changed_.notify_all();
  }
  // The next batch in order; false when all are written or the work has failed.
  bool take(TextBatch& batch) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return !encoded_.empty() && encoded_.begin()->first == taken_; };
    changed_.wait(lock, [&] { return error_ || ready() || (input_done_ && taken_ == pushed_); });
    if (error_ || !ready()) return false;
    batch = std::move(encoded_.extract(encoded_.begin()).mapped());
    ++taken_;
    return true;
  }
  void release(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    in_flight_ -= bytes;
    changed_.notify_all();
  }
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    changed_.notify_all();
  }
  std::exception_ptr error() const { return error_; }

 private:
  const std::int64_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<TextBatch> waiting_;
  std::map<std::int64_t, TextBatch> encoded_;
  std::int64_t in_flight_ = 0, pushed_ = 0, taken_ = 0;
  bool input_done_ = false;
  std::exception_ptr error_;
};

// Runs a part of the pipeline and passes its exception on.
template <class Part>
void guarded(Channel& channel, Part&& part) {
  try {
    part();
  } catch (...) {
    channel.fail(std::current_exception());
  }
}

void read_all(Channel& channel, const std::function<bool(std::string&)>& read) {
  TextBatch batch;
  std::string document;
  while (read(document)) {
    batch.bytes += static_cast<std::int64_t>(document.size());
    batch.texts.push_back(std::move(document));
    document.clear();
    if (batch.bytes >= kBatchBytes && !channel.push(std::exchange(batch, {}))) return;
  }
  if (!batch.texts.empty()) channel.push(std::move(batch));
  channel.finish_input();
}

void encode_all(Channel& channel, const Tokenizer& tokenizer) {
  const auto encoder = tokenizer.encoder();
  for (TextBatch batch; channel.pop(batch); channel.put_encoded(std::move(batch))) {
    for (const std::string& text : batch.texts) {
      encoder->encode(text, batch.ids);
      batch.ends.push_back(batch.ids.size());
    }
  }
}

}  // namespace

void EncodePipeline::run(
    const std::function<bool(std::string&)>& read,
    const std::function<void(std::string_view, std::span<const std::int32_t>)>& write) const {
  FULCRUM_REQUIRE(threads > 0, "encode pipeline: at least one thread; got {}", threads);
  Channel channel(bytes_in_flight);
  {
    std::vector<std::jthread> workers;
    workers.emplace_back([&] { guarded(channel, [&] { read_all(channel, read); }); });
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&] { guarded(channel, [&] { encode_all(channel, tokenizer); }); });
    }
    guarded(channel, [&] {
      for (TextBatch batch; channel.take(batch); channel.release(batch.bytes)) {
        std::size_t begin = 0;
        for (std::size_t i = 0; i < batch.texts.size(); ++i) {
          write(batch.texts[i], std::span(batch.ids).subspan(begin, batch.ends[i] - begin));
          begin = batch.ends[i];
        }
      }
    });
  }
  if (channel.error()) std::rethrow_exception(channel.error());
}

}  // namespace fulcrum::data
