#include "data/token_stream.h"

#include <algorithm>

#include "framework/core/error.h"

namespace fulcrum::data {

TokenStream::TokenStream(std::vector<TokenShard> shards) : shards_(std::move(shards)), begins_{0} {
  for (const TokenShard& shard : shards_) begins_.push_back(begins_.back() + shard.tokens());
}

std::int64_t TokenStream::documents() const {
  std::int64_t count = 0;
  for (const TokenShard& shard : shards_) count += shard.documents();
  return count;
}

std::size_t TokenStream::shard_of(std::int64_t position) const {
  FULCRUM_CHECK(position >= 0 && position < tokens(), "token {} of {}", position, tokens());
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), position);
  return static_cast<std::size_t>(after - begins_.begin()) - 1;
}

template <class Fn>
void TokenStream::for_each_part(std::int64_t first, std::int64_t count, Fn&& fn) const {
  FULCRUM_CHECK(first >= 0 && count >= 0 && first + count <= tokens(), "tokens {}..{} of {}", first,
                first + count, tokens());
  if (count == 0) return;
  std::int64_t done = 0;
  for (std::size_t s = shard_of(first); done < count; ++s) {
    const std::int64_t inside = first + done - begins_[s];
    const std::int64_t n = std::min(count - done, shards_[s].tokens() - inside);
    if (n > 0) fn(shards_[s], inside, n, done);
    done += n;
  }
}

void TokenStream::copy(std::int64_t first, std::int64_t count, std::int32_t* out) const {
  for_each_part(first, count,
                [&](const TokenShard& shard, std::int64_t inside, std::int64_t n,
                    std::int64_t done) { shard.copy(inside, n, out + done); });
}

void TokenStream::document_starts(std::int64_t first, std::int64_t count, std::int32_t* out) const {
  for_each_part(
      first, count,
      [&](const TokenShard& shard, std::int64_t inside, std::int64_t n, std::int64_t done) {
        std::int64_t document = shard.document_of(inside);
        std::int64_t end = shard.document_begin(document + 1);
        std::int64_t start =
            std::max(shard.document_begin(document) - inside, std::int64_t{0}) + done;
        // A document that began in the range's past starts at the range's first position; shards
        // hold whole documents, so a later shard's first document starts exactly where its part
        // does.
        for (std::int64_t i = 0; i < n; ++i) {
          while (inside + i >= end) {
            start = done + i;
            end = shard.document_begin(++document + 1);
          }
          out[done + i] = static_cast<std::int32_t>(start);
        }
      });
}

std::string TokenStream::place(std::int64_t position) const {
  const std::size_t s = shard_of(position);
  return fmt::format("{}: token {}", shards_[s].bin_path().string(), position - begins_[s]);
}

}  // namespace fulcrum::data
