#pragma once
// The documents of a split as one long row of tokens: its shards one after another.

#include <cstdint>
#include <vector>

#include "data/token_shard.h"

namespace fulcrum::data {

class TokenStream {
 public:
  explicit TokenStream(std::vector<TokenShard> shards);

  std::int64_t tokens() const { return begins_.back(); }
  std::int64_t documents() const;

  // Copies tokens first..first+count, which must lie inside.
  void copy(std::int64_t first, std::int64_t count, std::int32_t* out) const;
  // For each of these positions, the index within the range of the first token of its document; 0
  // when the document began before the range.
  void document_starts(std::int64_t first, std::int64_t count, std::int32_t* out) const;
  // "FILE.bin: token N", for messages about the token at a position.
  std::string place(std::int64_t position) const;

 private:
  std::size_t shard_of(std::int64_t position) const;
  // Calls fn(shard, first within the shard, count, offset within the range) for each shard that the
  // range touches.
  template <class Fn>
  void for_each_part(std::int64_t first, std::int64_t count, Fn&& fn) const;

  std::vector<TokenShard> shards_;
  std::vector<std::int64_t> begins_;  // first token of each shard; last entry: all tokens
};

}  // namespace fulcrum::data
