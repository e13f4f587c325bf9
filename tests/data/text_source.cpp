#include "data/text_source.h"

#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "data/byte_stream.h"
#include "data/file_list.h"
#include "data/man_text.h"
#include "data/utf8.h"
#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::data;
using fulcrum::testing::contains;
using fulcrum::testing::message_of;
using fulcrum::testing::TemporaryFolder;
using fulcrum::testing::write_text;

namespace {

using Texts = std::vector<std::string>;

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

Texts read_all(const TextSourceOptions& options, std::int64_t* skipped = nullptr) {
  TextSource source(options);
  Texts texts;
  for (std::string text; source.next(text);) texts.push_back(text);
  if (skipped != nullptr) *skipped = source.skipped();
  return texts;
}

Texts read_all(const std::filesystem::path& path) { return read_all({.inputs = {path.string()}}); }

std::string join(const Texts& texts) {
  std::string joined;
  for (const std::string& text : texts) joined += text;
  return joined;
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 20000; ++i) {
    text += fmt::format("line {} with ünïcode", i) + (i % 10 == 9 ? "\n\n" : "\n");
  }
  return text;
}

}  // namespace

TEST_CASE("text comes out of every compression", "[unit][data]") {
  const TemporaryFolder folder;
  const std::string text = long_text();
  for (const auto& [name, content] : std::vector<std::pair<std::string, std::string>>{
           {"a.txt", text},
           {"a.txt.gz", gzip(text)},
           {"members.txt.gz", gzip(text.substr(0, 1000)) + gzip(text.substr(1000))},
           {"a.txt.zst", zstd(text)},
           {"frames.zst", zstd(text.substr(0, 1000)) + zstd(text.substr(1000))},
           {"wrong-name.txt", gzip(text)}}) {
    write_text(folder / name, content);
    CHECK(read_all(folder / name) == Texts{text});
  }
}

TEST_CASE("damaged compressed files are refused by name", "[unit][data]") {
  const TemporaryFolder folder;
  for (const auto& packed : {gzip(long_text()), zstd(long_text())}) {
    for (const std::size_t length : {packed.size() / 2, packed.size() - 1}) {
      write_text(folder / "a.txt", packed.substr(0, length));
      const std::string message = message_of<IoError>([&] { read_all(folder / "a.txt"); });
      CHECK(contains(message, "a.txt: the compressed data ends early"));
    }
  }
  std::string flipped = gzip(long_text());
  flipped[flipped.size() / 2] ^= 1;
  write_text(folder / "a.txt", flipped);
  CHECK(contains(message_of<IoError>([&] { read_all(folder / "a.txt"); }), "a.txt"));
}

TEST_CASE("long texts are cut at blank lines", "[unit][data]") {
  const TemporaryFolder folder;
  const std::string text = long_text();
  write_text(folder / "a.txt", text);
  const auto read = [&](std::int64_t size) {
    return read_all({.inputs = {(folder / "a.txt").string()}, .document_bytes = size});
  };
  for (const std::int64_t size : {1, 1000, 100000}) {
    const Texts texts = read(size);
    CHECK(join(texts) == text);
    CHECK(texts.size() > 1);
    for (std::size_t i = 0; i + 1 < texts.size(); ++i) {
      CHECK(texts[i].ends_with("\n\n"));
      CHECK(static_cast<std::int64_t>(texts[i].size()) >= size);
      CHECK(static_cast<std::int64_t>(texts[i].size()) < size + 400);
    }
  }
  CHECK(read(1).size() == 2000);

  // Without blank lines: at a newline; without newlines: between characters.
  std::string lines, letters;
  for (int i = 0; i < 30000; ++i) lines += "some line\n";
  for (int i = 0; i < 200000; ++i) letters += "é";
  for (const std::string& whole : {lines, letters}) {
    write_text(folder / "a.txt", whole);
    const Texts texts = read(1000);
    CHECK(join(texts) == whole);
    CHECK(texts.size() > 2);
    for (const std::string& part : texts) CHECK(part.size() < 70000);
  }
}

TEST_CASE("JSON lines", "[unit][data]") {
  const TemporaryFolder folder;
  const std::string lines =
      "{\"text\": \"one\\nline \\u00e9\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"two\"}";
  for (const auto& [name, content] : std::vector<std::pair<std::string, std::string>>{
           {"a.jsonl", lines}, {"a.jsonl.gz", gzip(lines)}, {"a.jsonl.zst", zstd(lines)}}) {
    write_text(folder / name, content);
    CHECK(read_all(folder / name) == Texts{"one\nline é", "two"});
  }
  write_text(folder / "b.jsonl", "{\"body\": \"x\"}\n{\"body\": \" \\n\"}\n");
  CHECK(read_all({.inputs = {(folder / "b.jsonl").string()}, .field = "body"}) == Texts{"x"});

  const auto error = [&](const std::string& line) {
    write_text(folder / "c.jsonl", "{\"text\": \"fine\"}\n" + line + "\n{\"text\": \"last\"}\n");
    std::int64_t skipped = 0;
    CHECK(read_all({.inputs = {(folder / "c.jsonl").string()}, .skip_invalid = true}, &skipped) ==
          Texts{"fine", "last"});
    CHECK(skipped == 1);
    return message_of<UserError>([&] { read_all(folder / "c.jsonl"); });
  };
  CHECK(contains(error("{\"text\": \"broken"), "c.jsonl:2: not JSON"));
  CHECK(contains(error("{\"text\": \"\xff\"}"), "c.jsonl:2: not JSON"));
  CHECK(contains(error("{\"body\": \"x\", \"id\": 3}"),
                 "c.jsonl:2: no field 'text' (--field); the object has: body, id"));
  CHECK(
      contains(error("{\"text\": 7}"), "c.jsonl:2: field 'text' must be a string; it is a number"));
  CHECK(contains(error("[1]"), "c.jsonl:2: a JSON object is expected"));
}

TEST_CASE("text that is not UTF-8 is refused with file and line", "[unit][data]") {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", "first\n\nsecond\ncaf\xe9\n\nthird\n");
  CHECK(contains(message_of<UserError>([&] { read_all(folder / "a.txt"); }),
                 "a.txt:4: not UTF-8 (byte 0xe9)"));
  const TextSourceOptions options{
      .inputs = {(folder / "a.txt").string()}, .document_bytes = 1, .skip_invalid = true};
  std::int64_t skipped = 0;
  CHECK(read_all(options, &skipped) == Texts{"first\n\n", "third\n"});
  CHECK(skipped == 1);
}

TEST_CASE("well-formed UTF-8 is told from the rest", "[unit][data]") {
  CHECK(invalid_utf8("plain and é, 数, 😀") == std::string_view::npos);
  CHECK(invalid_utf8("12345678\xff") == 8);
  CHECK(invalid_utf8("ab\xc3") == 2);            // cut short
  CHECK(invalid_utf8("\xc0\xaf") == 0);          // overlong
  CHECK(invalid_utf8("\xed\xa0\x80") == 0);      // surrogate
  CHECK(invalid_utf8("\xf4\x90\x80\x80") == 0);  // above U+10FFFF
}

TEST_CASE("globs", "[unit][data]") {
  CHECK(matches_glob("*.txt", "a.txt"));
  CHECK_FALSE(matches_glob("*.txt", "b/a.txt"));
  CHECK(matches_glob("**/*.txt", "b/c/a.txt"));
  CHECK(matches_glob("**/*.txt", "a.txt"));
  CHECK(matches_glob("b/**/a.txt", "b/a.txt"));
  CHECK(matches_glob("man?/[a-c]*.[!2]", "man1/cat.1"));
  CHECK_FALSE(matches_glob("man?/[a-c]*.[!2]", "man1/dog.1"));
  CHECK_FALSE(matches_glob("man?/[a-c]*.[!2]", "man1/cat.2"));
  CHECK_FALSE(matches_glob("a?c", "a/c"));
  CHECK_FALSE(matches_glob("[ab", "a"));
}

TEST_CASE("inputs become a sorted list of files", "[unit][data]") {
  const TemporaryFolder folder;
  for (const char* name :
       {"b.txt", "a.md", "sub/c.jsonl.zst", "image.png", "man1/ls.1.gz", "x.1"}) {
    write_text(folder / name, "text");
  }
  std::filesystem::create_symlink(folder / "b.txt", folder / "link.txt");
  const std::string root = folder.path().string();
  const auto relative = [&](const Texts& inputs, const std::string& glob = "") {
    Texts names;
    for (const std::string& file : list_files(inputs, glob))
      names.push_back(file.substr(root.size() + 1));
    return names;
  };
  CHECK(relative({root}) == Texts{"a.md", "b.txt", "man1/ls.1.gz", "sub/c.jsonl.zst"});
  CHECK(relative({root}, "*.png") == Texts{"image.png"});
  CHECK(relative({root}, "sub/*") == Texts{"sub/c.jsonl.zst"});
  CHECK(relative({root + "/*.txt", root + "/a.md"}) == Texts{"b.txt", "a.md"});
  CHECK(relative({root + "/**/*.gz"}) == Texts{"man1/ls.1.gz"});
  CHECK(list_files({"-"}, "") == Texts{"-"});
  CHECK(contains(message_of<UserError>([&] { list_files({root + "/none"}, ""); }), "no such file"));
  CHECK(contains(message_of<UserError>([&] { list_files({root + "/*.pdf"}, ""); }),
                 "matches no file"));
  CHECK(contains(message_of<UserError>([&] { list_files({root}, "*.pdf"); }), "--glob *.pdf"));
}

TEST_CASE("manual pages lose their markup", "[unit][data]") {
  CHECK(strip_troff(R"(.\" a comment
.TH LS 1 "May 2026" "coreutils"
.ie \n(.g .ds Aq \(aq
.el       .ds Aq '
.de Sp
.if t .sp .5v
..
.if n \{\
.    hidden
.\}
.SH NAME
ls \- list directory contents
.SH SYNOPSIS
.B ls
[\fI\,OPTION\/\fR]... [\fI\,FILE\/\fR]...
.PP
Mandatory "quotes" \(bu caf\['e] \[u2014] \s-1SMALL\s0 a\\\\b.
.TP
\fB\-a\fR, \fB\-\-all\fR
do not ignore entries starting with .
.BR stat (1)
.IP "\(bu" 2
item
)") == R"(NAME
ls - list directory contents

SYNOPSIS
ls
[OPTION]... [FILE]...

Mandatory "quotes" • café — SMALL a\\b.

-a, --all
do not ignore entries starting with .
stat(1)

•
item
)");
  CHECK(strip_troff(R"(.Dd May 1, 2026
.Dt CAT 1
.Sh NAME
.Nm cat
.Nd concatenate files
.Sh SYNOPSIS
.Nm
.Op Fl u
.Op Ar file ...
.Bl -tag
.It Fl u
Disable buffering, see
.Xr setbuf 3 .
.El
)") == R"(NAME
cat
– concatenate files

SYNOPSIS
cat
[-u]
[file ...]

-u
Disable buffering, see
setbuf(3).
)");
  // A table without a layout, and an escaped period.
  CHECK(strip_troff(".TS\nbox;\nname\n.TE\nIt\\'s in a\\.zst\\&.\n") == "It's in a.zst.\n");
  for (const std::string escape : {"\\f", "\\*", "\\s", "\\(", "\\h", "\\n+", "\\", "\\[é"}) {
    CHECK(invalid_utf8(strip_troff("a" + escape + "数é" + escape + "é b\n")) ==
          std::string_view::npos);
  }
  CHECK(strip_troff(".so man1/other.1\n").empty());
  CHECK(strip_troff("").empty());
  CHECK(strip_troff("\\").empty());
  CHECK(strip_troff(".SH \"\nx\\f\n.de\n\\h'").size() < 10);
}

TEST_CASE("manual pages are told by their place", "[unit][data]") {
  const TemporaryFolder folder;
  write_text(folder / "man1/a.1.gz", gzip(".SH NAME\na \\- thing\n"));
  write_text(folder / "notes/a.1", ".SH NAME\n");
  CHECK(read_all(folder / "man1/a.1.gz") == Texts{"NAME\na - thing\n"});
  CHECK(read_all(folder / "notes/a.1") == Texts{".SH NAME\n"});
  CHECK(read_all({.inputs = {(folder / "notes/a.1").string()}, .format = TextFormat::man}) ==
        Texts{"NAME\n"});
}
