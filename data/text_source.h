#pragma once
// The documents of a list of inputs, one after another, in memory that depends on the longest
// document alone.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fulcrum::data {

enum class TextFormat : std::uint8_t { automatic, text, jsonl, man };

struct TextSourceOptions {
  std::vector<std::string> inputs = {};  // see list_files
  std::string glob = "";                 // which files of folders; empty: what looks like text
  // automatic: by name without compression: .jsonl and .ndjson, manual pages (man*/NAME.1 … .9),
  // everything else plain text.
  TextFormat format = TextFormat::automatic;
  std::string field = "text";  // of JSON lines
  // A plain text or manual page is one document up to this size; longer ones are cut at the first
  // blank line after it, or at a newline when there is none within twice the size. 1 makes every
  // paragraph a document.
  std::int64_t document_bytes = std::int64_t{1} << 20;
  bool skip_invalid =
      false;  // leave out and count what is not UTF-8 or not JSON, instead of ending with an error
};

class TextSource {
 public:
  // UserError when an input names nothing.
  explicit TextSource(const TextSourceOptions& options);
  ~TextSource();

  // The next document with anything but white space in it; false at the end. UserError "FILE:LINE:
  // …" for text that is not UTF-8, lines that are not JSON objects and objects without the field;
  // IoError for files that cannot be read.
  bool next(std::string& document);

  std::int64_t skipped() const { return skipped_; }
  std::int64_t files() const { return static_cast<std::int64_t>(files_.size()); }
  // Sizes of the files as stored; -1 when standard input is among them.
  std::int64_t total_bytes() const;
  // Of those, read so far; may be called from another thread.
  std::int64_t consumed_bytes() const { return consumed_.load(std::memory_order_relaxed); }

 private:
  class Reader;
  class LineReader;
  class PlainReader;
  class ManReader;
  std::unique_ptr<Reader> open(const std::string& path);

  TextSourceOptions options_;
  std::vector<std::string> files_;
  std::size_t next_file_ = 0;
  std::unique_ptr<Reader> reader_;
  std::atomic<std::int64_t> consumed_{0};
  std::int64_t skipped_ = 0;
};

}  // namespace fulcrum::data
