#pragma once
// Token shards: the file pair NAME.bin and NAME.idx of Megatron-LM's IndexedDataset, which
// Megatron-based trainers read as it is.
//
//   NAME.bin  the tokens of all documents one after another, u16 or i32 little-endian
//   NAME.idx  "MMIDIDX\0\0", u64 version = 1, u8 dtype code (4: i32, 8: u16), u64 sequences n, u64
//   entries of the document index m,
//             i32 lengths[n] (tokens), i64 pointers[n] (bytes into .bin), i64 documents[m] (first
//             sequence of each; last entry n)
//
// Fulcrum writes one sequence a document; what it reads may have several sequences in a document.
// Whether documents end in an end-of-document token is the writer's business (`fulcrum prepare`
// appends one to each).

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "data/digest_file.h"
#include "data/mapped_file.h"
#include "framework/core/dtype.h"

namespace fulcrum::data {

// u16 below 65,500 entries, i32 from there on: Megatron's rule.
DType token_type(std::int64_t vocabulary);

struct ShardFiles {
  std::filesystem::path bin, idx;
};
// `prefix` is the path without extension.
ShardFiles shard_files(const std::filesystem::path& prefix);

// Streams documents to a shard. Memory: four bytes a document.
class TokenShardWriter {
 public:
  TokenShardWriter(const std::filesystem::path& prefix, std::int64_t vocabulary);

  // Ids must lie in [0, vocabulary); at most 2³¹-1 of them.
  void add_document(std::span<const std::int32_t> tokens);
  std::int64_t documents() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t tokens() const { return bin_.bytes() / size_of(type_); }

  struct Digests {
    FileDigest bin, idx;
  };
  Digests finish();

 private:
  std::filesystem::path prefix_;
  std::int64_t vocabulary_;
  DType type_;
  DigestFile bin_;
  std::vector<std::int32_t> lengths_;
  std::vector<std::uint16_t> narrow_;  // scratch
};

// Reads a shard through memory maps. Opening checks the header, the sizes of both files and that
// lengths, pointers and documents agree; IoError names the file and the place.
class TokenShard {
 public:
  explicit TokenShard(const std::filesystem::path& prefix);

  std::int64_t tokens() const { return tokens_; }
  std::int64_t documents() const { return documents_; }
  DType type() const { return type_; }
  const std::filesystem::path& bin_path() const { return bin_.path(); }

  // First token of a document, or tokens() for index documents().
  std::int64_t document_begin(std::int64_t document) const;
  // The document that holds the token at a position in [0, tokens()).
  std::int64_t document_of(std::int64_t position) const;
  // Copies tokens first..first+count.
  void copy(std::int64_t first, std::int64_t count, std::int32_t* out) const;
  std::vector<std::int32_t> document(std::int64_t index) const;

 private:
  std::int64_t pointer(std::int64_t sequence) const;
  void check_arrays(std::int64_t entries) const;

  MappedFile idx_;
  MappedFile bin_;
  std::int64_t sequences_ = 0, documents_ = 0, tokens_ = 0;
  std::size_t pointers_at_ = 0, documents_at_ = 0;  // byte offsets in .idx
  DType type_ = DType::u16;
};

}  // namespace fulcrum::data
