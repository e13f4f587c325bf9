#include "data/token_shard.h"

#include <string>
#include <vector>

#include "framework/core/error.h"
#include "framework/core/file.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::data;
using fulcrum::testing::contains;
using fulcrum::testing::TemporaryFolder;
using fulcrum::testing::write_text;

namespace {

using Documents = std::vector<std::vector<std::int32_t>>;

TokenShardWriter::Digests write(const std::filesystem::path& prefix, std::int64_t vocabulary,
                                const Documents& documents) {
  TokenShardWriter writer(prefix, vocabulary);
  for (const auto& document : documents) writer.add_document(document);
  return writer.finish();
}

template <class T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string error_of(const std::filesystem::path& prefix) {
  try {
    TokenShard shard(prefix);
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("token shard keeps documents", "[unit][data]") {
  TemporaryFolder folder;
  for (const std::int64_t vocabulary : {1000, 70000}) {
    const auto last = static_cast<std::int32_t>(vocabulary - 1);
    const Documents documents = {{1, 2, 3}, {last}, {}, {5, 6}};
    const auto digests = write(folder / "a", vocabulary, documents);
    const TokenShard shard(folder / "a");
    CHECK(shard.type() == (vocabulary == 1000 ? DType::u16 : DType::i32));
    REQUIRE(shard.documents() == 4);
    REQUIRE(shard.tokens() == 6);
    for (std::size_t i = 0; i < documents.size(); ++i) {
      CHECK(shard.document(static_cast<std::int64_t>(i)) == documents[i]);
    }
    const std::vector<std::int64_t> owner = {0, 0, 0, 1, 3, 3};
    for (std::size_t i = 0; i < owner.size(); ++i) {
      CHECK(shard.document_of(static_cast<std::int64_t>(i)) == owner[i]);
    }
    CHECK(shard.document_begin(4) == 6);
    std::vector<std::int32_t> middle(3);
    shard.copy(2, 3, middle.data());
    CHECK(middle == std::vector<std::int32_t>{3, last, 5});
    CHECK(digests.bin.checksum == checksum_file(folder / "a.bin"));
    CHECK(digests.idx.checksum == checksum_file(folder / "a.idx"));
    CHECK(digests.bin.bytes == 6 * size_of(shard.type()));
  }
}

TEST_CASE("token shard has the bytes of Megatron's format", "[unit][data]") {
  TemporaryFolder folder;
  write(folder / "a", 300, {{258, 1}, {7}});
  CHECK(read_text(folder / "a.bin") == std::string("\x02\x01\x01\x00\x07\x00", 6));
  const std::string expected =
      std::string("MMIDIDX\0\0", 9) + bytes_of<std::uint64_t>(1) + "\x08" +
      bytes_of<std::uint64_t>(2) + bytes_of<std::uint64_t>(3) + bytes_of<std::int32_t>(2) +
      bytes_of<std::int32_t>(1) + bytes_of<std::int64_t>(0) + bytes_of<std::int64_t>(4) +
      bytes_of<std::int64_t>(0) + bytes_of<std::int64_t>(1) + bytes_of<std::int64_t>(2);
  CHECK(read_text(folder / "a.idx") == expected);
}

TEST_CASE("token shard of no documents", "[unit][data]") {
  TemporaryFolder folder;
  write(folder / "a", 300, {});
  const TokenShard shard(folder / "a");
  CHECK(shard.tokens() == 0);
  CHECK(shard.documents() == 0);
}

TEST_CASE("token shard type follows Megatron's rule", "[unit][data]") {
  CHECK(token_type(65499) == DType::u16);
  CHECK(token_type(65500) == DType::i32);
}

TEST_CASE("token shard refuses ids outside the vocabulary", "[unit][data]") {
  TemporaryFolder folder;
  CHECK_THROWS_AS(write(folder / "a", 300, {{1, 300}}), ArgumentError);
  CHECK_THROWS_AS(write(folder / "a", 300, {{-1}}), ArgumentError);
}

TEST_CASE("damaged token shards are refused with file and place", "[unit][data]") {
  TemporaryFolder folder;
  write(folder / "a", 300, {{258, 1}, {7}});
  const std::string idx = read_text(folder / "a.idx");
  const std::string bin = read_text(folder / "a.bin");
  REQUIRE(error_of(folder / "a").empty());

  for (std::size_t length = 0; length < idx.size(); ++length) {
    write_text(folder / "a.idx", idx.substr(0, length));
    const std::string message = error_of(folder / "a");
    CHECK(contains(message, "a.idx"));
    CHECK(contains(message, "byte"));
  }
  const auto damage = [&](std::size_t at, char value) {
    std::string copy = idx;
    copy[at] = value;
    write_text(folder / "a.idx", copy);
    return error_of(folder / "a");
  };
  CHECK(contains(damage(0, 'X'), "byte 0"));
  CHECK(contains(damage(9, 2), "version 2"));
  CHECK(contains(damage(17, 6), "token type code 6"));
  CHECK(contains(damage(24, 1), "do not fit"));
  CHECK(contains(damage(34, 3), "sequence 1"));            // length of sequence 0
  CHECK(contains(damage(38, 2), "a.bin: 6 bytes"));        // length of the last
  CHECK(contains(damage(42, 2), "sequence 0"));            // pointer
  CHECK(contains(damage(idx.size() - 8, 1), "document"));  // last entry
  write_text(folder / "a.idx", idx);
  write_text(folder / "a.bin", bin.substr(0, 5));
  CHECK(contains(error_of(folder / "a"), "a.bin: 5 bytes"));
  std::filesystem::remove(folder / "a.bin");
  CHECK(contains(error_of(folder / "a"), "a.bin: cannot open: No such file"));
}
