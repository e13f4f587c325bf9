#include "data/text_source.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/byte_stream.h"
#include "data/file_list.h"
#include "data/man_text.h"
#include "data/utf8.h"
#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 16;
constexpr std::size_t kLongestRecord = std::size_t{1} << 30;  // a JSON line, a manual page

[[noreturn]] void bad(const std::string& name, std::int64_t line, const std::string& what) {
  throw UserError(fmt::format("{}:{}: {}", name, line, what));
}

std::int64_t newlines(std::string_view text) { return std::count(text.begin(), text.end(), '\n'); }

void check_utf8(const std::string& name, std::int64_t first_line, std::string_view text) {
  const std::size_t at = invalid_utf8(text);
  if (at == std::string_view::npos) return;
  bad(name, first_line + newlines(text.substr(0, at)),
      fmt::format("not UTF-8 (byte 0x{:02x}); --skip-invalid leaves such documents out",
                  static_cast<unsigned char>(text[at])));
}

}  // namespace

// Documents of one file. A document that throws UserError has been consumed.
class TextSource::Reader {
 public:
  Reader(const std::string& path, const TextSourceOptions& options,
         std::atomic<std::int64_t>* consumed)
      : options_(options), stream_(path, consumed) {}
  virtual ~Reader() = default;
  virtual bool next(std::string& document) = 0;

 protected:
  // Appends a block to the buffer; false at the end of the file.
  bool more() {
    if (begin_ > 0) {
      buffer_.erase(0, begin_);
      begin_ = 0;
    }
    const std::size_t kept = buffer_.size();
    buffer_.resize(kept + kReadBytes);
    const std::size_t n = stream_.read(buffer_.data() + kept, kReadBytes);
    buffer_.resize(kept + n);
    return n > 0;
  }
  std::string_view pending() const { return std::string_view(buffer_).substr(begin_); }
  // Moves the first bytes of what is pending to `out`.
  void take(std::size_t bytes, std::string& out) {
    out.assign(buffer_, begin_, bytes);
    begin_ += bytes;
  }

  const TextSourceOptions& options_;
  ByteStream stream_;
  std::int64_t line_ = 1;  // of the first pending byte

 private:
  std::string buffer_;
  std::size_t begin_ = 0;
};

class TextSource::LineReader final : public Reader {
 public:
  using Reader::Reader;

  bool next(std::string& document) override {
    while (take_line()) {
      const std::int64_t number = line_++;
      if (text_.find_first_not_of(" \t\r") == std::string::npos) continue;
      parse(number, document);
      return true;
    }
    return false;
  }

 private:
  bool take_line() {
    std::size_t searched = 0;
    for (;;) {
      const std::size_t end = pending().find('\n', searched);
      if (end != std::string_view::npos) {
        take(end + 1, text_);
        text_.pop_back();
        return true;
      }
      searched = pending().size();
      if (searched > kLongestRecord) {
        throw IoError(fmt::format("{}:{}: a line of more than 1 GiB", stream_.name(), line_));
      }
      if (!more()) break;
    }
    if (pending().empty()) return false;
    take(pending().size(), text_);
    return true;
  }

  void parse(std::int64_t number, std::string& document) {
    using nlohmann::json;
    json record;
    try {
      record = json::parse(text_);
    } catch (const json::exception& error) {
      bad(stream_.name(), number, fmt::format("not JSON: {}", error.what()));
    }
    if (!record.is_object()) {
      bad(stream_.name(), number,
          fmt::format("a JSON object is expected; this is {} {}", record.is_array() ? "an" : "a",
                      record.type_name()));
    }
    const auto field = record.find(options_.field);
    if (field == record.end()) {
      std::string names;
      for (const auto& [name, value] : record.items()) names += (names.empty() ? "" : ", ") + name;
      bad(stream_.name(), number,
          fmt::format("no field '{}' (--field); the object has: {}", options_.field, names));
    }
    if (!field->is_string()) {
      bad(stream_.name(), number,
          fmt::format("field '{}' must be a string; it is a {}", options_.field,
                      field->type_name()));
    }
    document = std::move(field->get_ref<std::string&>());
  }

  std::string text_;
};

class TextSource::PlainReader final : public Reader {
 public:
  using Reader::Reader;

  bool next(std::string& document) override {
    const auto size = static_cast<std::size_t>(options_.document_bytes);
    std::optional<std::size_t> cut;
    std::size_t searched = 0;
    while (!(cut = find_cut(size, searched)) && more()) {
    }
    const std::size_t bytes = cut.value_or(pending().size());
    if (bytes == 0) return false;
    take(bytes, document);
    const std::int64_t first = line_;
    line_ += newlines(document);
    check_utf8(stream_.name(), first, document);
    return true;
  }

 private:
  // End of the document that begins what is pending, if it can be told yet. `searched`: where the
  // search for a blank line goes on.
  std::optional<std::size_t> find_cut(std::size_t size, std::size_t& searched) const {
    const std::string_view text = pending();
    if (text.size() <= size) return {};
    // A blank line whose first newline is the last byte within the size counts.
    for (std::size_t i = std::max(searched, size - 1); i + 1 < text.size(); ++i) {
      searched = i;
      if (text[i] != '\n') continue;
      std::size_t next = i + 1;
      while (next < text.size() &&
             (text[next] == ' ' || text[next] == '\t' || text[next] == '\r')) {
        ++next;
      }
      if (next == text.size()) break;  // not told yet
      if (text[next] == '\n') return next + 1;
    }
    const std::size_t limit = std::max<std::size_t>(2 * size, kReadBytes);
    if (text.size() <= limit) return {};
    if (const std::size_t newline = text.rfind('\n', limit); newline != std::string_view::npos) {
      return newline + 1;
    }
    std::size_t end = limit;
    while (end > 1 && (text[end] & 0xc0) == 0x80) --end;
    return end;
  }
};

class TextSource::ManReader final : public Reader {
 public:
  using Reader::Reader;

  bool next(std::string& document) override {
    if (!read_) {
      read_ = true;
      while (more()) {
        if (pending().size() > kLongestRecord) {
          throw IoError(fmt::format("{}: a manual page of more than 1 GiB", stream_.name()));
        }
      }
      check_utf8(stream_.name(), 1, pending());
      text_ = strip_troff(pending());
    }
    if (at_ == text_.size()) return false;
    const auto size = static_cast<std::size_t>(options_.document_bytes);
    std::size_t end = text_.size();
    if (end - at_ > size) {
      const std::size_t blank = text_.find("\n\n", at_ + size - 1);
      if (blank != std::string::npos) end = blank + 2;
    }
    document.assign(text_, at_, end - at_);
    at_ = end;
    return true;
  }

 private:
  bool read_ = false;
  std::string text_;
  std::size_t at_ = 0;
};

TextSource::TextSource(const TextSourceOptions& options)
    : options_(options), files_(list_files(options.inputs, options.glob)) {
  FULCRUM_REQUIRE(options.document_bytes > 0,
                  "text source: document_bytes must be positive; got {}", options.document_bytes);
}

TextSource::~TextSource() = default;

std::unique_ptr<TextSource::Reader> TextSource::open(const std::string& path) {
  TextFormat format = options_.format;
  if (format == TextFormat::automatic) {
    const std::string_view name = without_compression(path);
    const bool lines = name.ends_with(".jsonl") || name.ends_with(".ndjson");
    format = lines ? TextFormat::jsonl : is_manual_page(path) ? TextFormat::man : TextFormat::text;
  }
  if (format == TextFormat::jsonl) return std::make_unique<LineReader>(path, options_, &consumed_);
  if (format == TextFormat::man) return std::make_unique<ManReader>(path, options_, &consumed_);
  return std::make_unique<PlainReader>(path, options_, &consumed_);
}

bool TextSource::next(std::string& document) {
  for (;;) {
    if (!reader_) {
      if (next_file_ == files_.size()) return false;
      reader_ = open(files_[next_file_++]);
    }
    try {
      if (!reader_->next(document)) {
        reader_.reset();
        continue;
      }
    } catch (const IoError&) {
      throw;
    } catch (const UserError&) {
      if (!options_.skip_invalid) throw;
      ++skipped_;
      continue;
    }
    if (document.find_first_not_of(" \t\r\n\f") != std::string::npos) return true;
  }
}

std::int64_t TextSource::total_bytes() const {
  std::int64_t total = 0;
  for (const std::string& file : files_) {
    std::error_code error;
    const auto size = file == "-" ? 0 : std::filesystem::file_size(file, error);
    if (file == "-" || error) return -1;
    total += static_cast<std::int64_t>(size);
  }
  return total;
}

}  // namespace fulcrum::data
