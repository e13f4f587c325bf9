#include "framework/ops/ngram.h"

#include <set>

#include "tests/catch.h"

using namespace fulcrum;
using ops::NgramHash;
using ops::NgramHashOptions;

namespace {

NgramHashOptions options(std::vector<std::int64_t> orders, std::int64_t heads,
                         std::vector<std::int64_t> rows, std::int64_t vocabulary) {
  NgramHashOptions o;
  o.orders = std::move(orders);
  o.heads = heads;
  o.rows_per_head = std::move(rows);
  o.vocabulary = vocabulary;
  return o;
}

// The formula of the header, one position, order and head at a time.
std::vector<std::int64_t> reference(const std::vector<std::int32_t>& ids,
                                    const std::vector<std::int32_t>& start, std::int64_t seq,
                                    const NgramHash& hash, std::int64_t pad) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(ids.size()); ++i) {
    const std::int64_t t = i % seq;
    std::size_t column = 0;
    for (const std::int64_t n : hash.orders) {
      std::int64_t mix = 0;
      for (std::int64_t k = 0; k < n; ++k) {
        const std::int64_t token = t - k >= start[i] ? ids[i - k] : pad;
        mix ^= token * hash.multipliers[k];
      }
      for (std::int64_t j = 0; j < hash.heads; ++j, ++column) {
        rows.push_back(hash.offsets[column] + mix % hash.primes[column]);
      }
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("row totals of published checkpoints", "[unit][ops]") {
  // 16,000,000 rows a head, two layers, orders 2 to 4, eight heads.
  const auto large = ops::make_ngram_hashes(options({2, 3, 4}, 8, {16000000}, 99092), {1, 14});
  REQUIRE(large.size() == 2);
  CHECK(large[0].rows() == 384006168);
  CHECK(large[1].rows() == 384016682);
  // The demonstration: 129280·5 rows a head, orders 2 and 3, layers 1 and 15.
  const auto demo = ops::make_ngram_hashes(options({2, 3}, 8, {646400, 646400}, 99092), {1, 15});
  CHECK(demo[0].rows() == 10344164);
  CHECK(demo[1].rows() == 10348242);
  CHECK(demo[0].primes[0] == 646403);
  CHECK(demo[0].primes[8] == 646537);
}

TEST_CASE("primes are distinct over layers and orders, multipliers are NumPy's", "[unit][ops]") {
  const auto hashes = ops::make_ngram_hashes(options({2, 3}, 3, {100}, 1000), {1, 15});
  CHECK(hashes[0].primes == std::vector<std::int64_t>{101, 103, 107, 109, 113, 127});
  CHECK(hashes[1].primes == std::vector<std::int64_t>{131, 137, 139, 149, 151, 157});
  CHECK(hashes[0].multipliers ==
        std::vector<std::int64_t>{7593627661414631, 479593001838623, 3563315849468963});
  CHECK(hashes[1].multipliers ==
        std::vector<std::int64_t>{2865651367968763, 5551170510236881, 5343936160617101});
  // A prime itself is a valid size, and orders may have sizes of their own.
  const auto own = ops::make_ngram_hashes(options({2, 3}, 2, {101, 7}, 1000), {0});
  CHECK(own[0].primes == std::vector<std::int64_t>{101, 103, 7, 11});
  CHECK(own[0].offsets == std::vector<std::int64_t>{0, 101, 204, 211, 222});
}

TEST_CASE("rows agree with the published code", "[unit][ops]") {
  // Made with NumPy by the published code: layers 1 and 15, the rows of layer 15.
  const auto hash = ops::make_ngram_hashes(options({2, 3}, 3, {100}, 1000), {1, 15})[1];
  const Tensor ids = Tensor::from<std::int32_t>({5, 999, 0, 17, 5, 1, 2, 3, 4, 998}, {2, 5});
  const Tensor rows = ops::ngram_rows(ids, {}, hash, 2);
  CHECK(rows.shape() == Shape{10, 6});
  CHECK(rows.to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{4,   216, 362, 545, 638, 740, 79,  138, 288, 420, 568, 717,
                                  23,  192, 287, 521, 636, 790, 8,   234, 306, 495, 630, 761,
                                  123, 235, 322, 550, 672, 782, 52,  163, 269, 548, 656, 801,
                                  1,   244, 306, 520, 574, 758, 92,  205, 365, 543, 577, 727,
                                  95,  200, 277, 478, 564, 837, 108, 137, 304, 510, 564, 717});
}

TEST_CASE("rows of long sequences, with and without documents", "[unit][ops]") {
  constexpr std::int64_t kBatch = 3, kSeq = 701;
  std::vector<std::int32_t> ids, none, start;
  for (std::int64_t i = 0; i < kBatch * kSeq; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * 7919 + i * i % 31) % 512));
    none.push_back(0);
    const std::int64_t t = i % kSeq;
    start.push_back(static_cast<std::int32_t>(t - t % 97));
  }
  const Tensor id = Tensor::from(ids, {kBatch, kSeq});
  for (const auto& orders : {std::vector<std::int64_t>{2, 3, 4}, {1, 3}, {3}}) {
    const auto hash = ops::make_ngram_hashes(options(orders, 5, {1 << 20}, 512), {2})[0];
    CHECK(ops::ngram_rows(id, {}, hash, 7).to_vector<std::int64_t>() ==
          reference(ids, none, kSeq, hash, 7));
    CHECK(ops::ngram_rows(id, Tensor::from(start, {kBatch, kSeq}), hash, 7)
              .to_vector<std::int64_t>() == reference(ids, start, kSeq, hash, 7));
  }
  // The smallest prime and the largest products.
  const auto small = ops::make_ngram_hashes(options({2, 3}, 1, {2}, 512), {0})[0];
  CHECK(small.primes[0] == 2);
  CHECK(ops::ngram_rows(id, {}, small, 511).to_vector<std::int64_t>() ==
        reference(ids, none, kSeq, small, 511));
}

TEST_CASE("empty batches hash to no rows", "[unit][ops]") {
  const auto hash = ops::make_ngram_hashes(options({2}, 2, {10}, 100), {0})[0];
  CHECK(ops::ngram_rows(Tensor::empty({0, 8}, DType::i32), {}, hash, 0).shape() == Shape{0, 2});
  CHECK(ops::ngram_rows(Tensor::empty({3, 0}, DType::i32), {}, hash, 0).shape() == Shape{0, 2});
}

TEST_CASE("ngram arguments are checked", "[unit][ops]") {
  const auto hash = ops::make_ngram_hashes(options({2}, 2, {10}, 100), {0})[0];
  const Tensor ids = Tensor::from<std::int32_t>({1, 2, 3}, {1, 3});
  CHECK_THROWS_AS(ops::ngram_rows(ids.reshape({3}), {}, hash, 0), ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(Tensor::from<std::int32_t>({1, 100}, {1, 2}), {}, hash, 0),
                  ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(Tensor::from<std::int32_t>({-1}, {1, 1}), {}, hash, 0),
                  ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(Tensor::from<std::int64_t>({1}, {1, 1}), {}, hash, 0),
                  ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(ids, {}, hash, 100), ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(ids, Tensor::from<std::int32_t>({0, 0}, {1, 2}), hash, 0),
                  ArgumentError);
  CHECK_THROWS_AS(ops::ngram_rows(ids, Tensor::from<std::int32_t>({0, 2, 0}, {1, 3}), hash, 0),
                  ArgumentError);
  std::set<std::int64_t> seen;
  CHECK_THROWS_AS(ops::make_ngram_hash(options({}, 2, {10}, 100), 0, seen), ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({3, 2}, 2, {10}, 100), 0, seen), ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({2}, 0, {10}, 100), 0, seen), ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({2, 3}, 2, {10, 10, 10}, 100), 0, seen),
                  ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({2}, 2, {1}, 100), 0, seen), ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({2}, 2, {10}, 0), 0, seen), ArgumentError);
  CHECK_THROWS_AS(ops::make_ngram_hash(options({2}, 2, {10}, 100), -1, seen), ArgumentError);
}
