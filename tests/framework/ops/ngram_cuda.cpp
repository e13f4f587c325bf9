#include "framework/core/philox.h"
#include "framework/ops/ngram.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"

using namespace fulcrum;
using namespace fulcrum::testing;
using ops::NgramHash;
using ops::NgramHashOptions;

namespace {

Tensor random_ids(const Shape& shape, std::int64_t bound, std::uint64_t seed) {
  const Random draw(seed, 3);
  const Tensor ids = Tensor::empty(shape, DType::i32);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.data<std::int32_t>()[i] = static_cast<std::int32_t>(
        draw.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound)));
  }
  return ids;
}

Tensor document_starts(const Shape& shape, std::int64_t length) {
  const Tensor start = Tensor::empty(shape, DType::i32);
  for (std::int64_t i = 0; i < start.numel(); ++i) {
    const std::int64_t t = i % shape[1];
    start.data<std::int32_t>()[i] = static_cast<std::int32_t>(t - t % length);
  }
  return start;
}

}  // namespace

TEST_CASE("n-gram rows on CUDA equal those on the CPU", "[gpu][ops]") {
  const Device device = cuda_device();
  struct Case {
    std::vector<std::int64_t> orders;
    std::int64_t heads, rows, vocabulary;
  };
  // up to more columns than one launch takes, a prime of two, rows beyond 2^32
  for (const Case& c : {Case{{2, 3}, 8, 1000, 500}, Case{{1, 3, 4}, 29, 1 << 20, 99092},
                        Case{{2}, 1, 2, 500}, Case{{3}, 2, std::int64_t{1} << 40, 2000}}) {
    NgramHashOptions options;
    options.orders = c.orders;
    options.heads = c.heads;
    options.rows_per_head = {c.rows};
    options.vocabulary = c.vocabulary;
    const NgramHash hash = ops::make_ngram_hashes(options, {3})[0];
    const Tensor map = random_ids({c.vocabulary + 77}, c.vocabulary, 1);
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 701}, Shape{0, 5}, Shape{2, 0}}) {
      INFO(hash.columns() << " columns, " << shape[0] << " x " << shape[1]);
      const Tensor raw = random_ids(shape, map.numel(), 2);
      const Tensor compressed = random_ids(shape, c.vocabulary, 4);
      const Tensor start = document_starts(shape, 13);
      const auto same = [&](const Tensor& ids, const Tensor& starts, const Tensor& id_map) {
        const Tensor cpu = ops::ngram_rows(ids, starts, hash, 3, id_map);
        poison_memory(true);
        const Tensor rows =
            ops::ngram_rows(ids.to(device), starts.defined() ? starts.to(device) : starts, hash, 3,
                            id_map.defined() ? id_map.to(device) : id_map);
        poison_memory(false);
        return rows.shape() == cpu.shape() &&
               rows.to(Device{}).to_vector<std::int64_t>() == cpu.to_vector<std::int64_t>();
      };
      CHECK(same(compressed, {}, {}));
      CHECK(same(compressed, start, {}));
      CHECK(same(raw, {}, map));
      CHECK(same(raw, start, map));
    }
  }
}
