#include "data/sampler.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::data;
using fulcrum::testing::TemporaryFolder;

namespace {

using Documents = std::vector<std::vector<std::int32_t>>;
using Row = std::vector<std::int32_t>;

TokenStream stream_of_shards(const TemporaryFolder& folder, const std::vector<Documents>& shards) {
  std::vector<TokenShard> opened;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const auto prefix = folder / ("shard" + std::to_string(s));
    TokenShardWriter writer(prefix, 100);
    for (const auto& document : shards[s]) writer.add_document(document);
    writer.finish();
    opened.emplace_back(prefix);
  }
  return TokenStream(std::move(opened));
}

// Tokens 10, 11, …; 9 ends a document.
const std::vector<Documents> kShards = {{{10, 11, 9}, {12, 9}}, {}, {{13, 14, 15, 16, 9}, {17}}};

}  // namespace

TEST_CASE("windows hold tokens, targets and document starts", "[unit][data]") {
  TemporaryFolder folder;
  const Windows windows(stream_of_shards(folder, kShards), 4, 100, 0);
  CHECK(windows.stream().tokens() == 11);
  CHECK(windows.stream().documents() == 4);
  REQUIRE(windows.whole() == 2);
  REQUIRE(windows.count() == 3);
  const std::vector<std::int64_t> all = {0, 1, 2};
  const Batch batch = windows.load(all);
  CHECK(batch.ids.to_vector<std::int32_t>() == Row{10, 11, 9, 12, 9, 13, 14, 15, 16, 9, 17, 0});
  CHECK(batch.targets.to_vector<std::int32_t>() ==
        Row{11, 9, 12, 9, 13, 14, 15, 16, 9, 17, -1, -1});
  CHECK(batch.document_start.to_vector<std::int32_t>() == Row{0, 0, 0, 3, 0, 1, 1, 1, 0, 0, 2, 3});
  const std::vector<std::int64_t> reversed = {1, 0};
  const Batch swapped = windows.load(reversed);
  CHECK(swapped.ids.to_vector<std::int32_t>() == Row{9, 13, 14, 15, 10, 11, 9, 12});
}

TEST_CASE("every token but the first is a target exactly once in the windows", "[unit][data]") {
  TemporaryFolder folder;
  for (std::int64_t length = 1; length <= 13; ++length) {
    const Windows windows(stream_of_shards(folder, kShards), length, 100, 0);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(windows.count()));
    std::iota(indices.begin(), indices.end(), 0);
    Row targets;
    for (const std::int32_t t : windows.load(indices).targets.to_vector<std::int32_t>()) {
      if (t >= 0) targets.push_back(t);
    }
    CHECK(targets == Row{11, 9, 12, 9, 13, 14, 15, 16, 9, 17});
    CHECK(windows.targets() == 10);
  }
}

TEST_CASE("document starts agree with a plain search at every offset", "[unit][data]") {
  TemporaryFolder folder;
  const TokenStream stream = stream_of_shards(folder, kShards);
  const std::vector<std::int64_t> begin = {0, 0, 0, 3, 3, 5, 5, 5, 5, 5, 10};
  for (std::int64_t first = 0; first < 11; ++first) {
    for (std::int64_t count = 0; first + count <= 11; ++count) {
      Row starts(static_cast<std::size_t>(count)), expected;
      stream.document_starts(first, count, starts.data());
      for (std::int64_t i = first; i < first + count; ++i) {
        expected.push_back(static_cast<std::int32_t>(
            std::max<std::int64_t>(begin[static_cast<std::size_t>(i)] - first, 0)));
      }
      CHECK(starts == expected);
    }
  }
}

TEST_CASE("windows name file and place of an id outside the vocabulary", "[unit][data]") {
  TemporaryFolder folder;
  const Windows windows(stream_of_shards(folder, kShards), 4, 15, 0);
  const std::vector<std::int64_t> second = {1};
  try {
    windows.load(second);
    FAIL("no error");
  } catch (const IoError& error) {
    CHECK(std::string(error.what()).find("shard2.bin: token 2: id 15") != std::string::npos);
  }
  const std::vector<std::int64_t> outside = {3};
  CHECK_THROWS_AS(windows.load(outside), ArgumentError);
}

TEST_CASE("sampler visits every window once an epoch, in an order of its own", "[unit][data]") {
  const Sampler sampler(17, 5, 42);
  std::vector<std::int64_t> order;
  for (std::int64_t step = 0; step < 17; ++step) {
    for (const std::int64_t i : sampler.samples(step)) order.push_back(i);
  }
  REQUIRE(order.size() == 85);
  std::vector<std::vector<std::int64_t>> epochs;
  for (int epoch = 0; epoch < 5; ++epoch) {
    std::vector<std::int64_t> part(order.begin() + epoch * 17, order.begin() + (epoch + 1) * 17);
    for (const auto& earlier : epochs) CHECK(part != earlier);
    epochs.push_back(part);
    std::sort(part.begin(), part.end());
    for (std::int64_t i = 0; i < 17; ++i) CHECK(part[static_cast<std::size_t>(i)] == i);
  }
  CHECK(sampler.samples(3) == Sampler(17, 5, 42).samples(3));
  CHECK(sampler.samples(3) != Sampler(17, 5, 43).samples(3));
  CHECK(sampler.epochs(17) == 5.0);
}

TEST_CASE("a step may take more windows than there are", "[unit][data]") {
  std::vector<std::int64_t> samples = Sampler(2, 6, 1).samples(1);
  std::sort(samples.begin(), samples.end());
  CHECK(samples == std::vector<std::int64_t>{0, 0, 0, 1, 1, 1});
}

TEST_CASE("ranks and micro-batches share a global batch without overlap", "[unit][data]") {
  const std::vector<std::int64_t> samples = Sampler(1000, 24, 1).samples(0);
  for (const std::int64_t ranks : {1, 2, 4}) {
    for (const std::int64_t micro_batches : {1, 2, 3, 6}) {
      std::vector<std::int64_t> joined;
      for (std::int64_t j = 0; j < micro_batches; ++j) {
        for (std::int64_t rank = 0; rank < ranks; ++rank) {
          const auto part = micro_batch_of(samples, j, micro_batches, rank, ranks);
          joined.insert(joined.end(), part.begin(), part.end());
        }
      }
      CHECK(joined == samples);
    }
  }
  CHECK_THROWS_AS(micro_batch_of(samples, 0, 5, 0, 1), ArgumentError);
  CHECK_THROWS_AS(micro_batch_of(samples, 2, 2, 0, 1), ArgumentError);
}
