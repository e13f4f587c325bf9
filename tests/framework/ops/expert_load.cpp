#include "framework/ops/expert_load.h"

#include "framework/ops/sequence_share.h"
#include "tests/catch.h"

using namespace fulcrum;
using Counts = std::vector<std::int64_t>;

TEST_CASE("counts add up", "[unit][ops]") {
  const Tensor total = Tensor::from<std::int64_t>({1, 0, 5}, {3});
  ops::accumulate_counts(total, Tensor::from<std::int64_t>({2, 3, 0}, {3}));
  CHECK(total.to_vector<std::int64_t>() == Counts{3, 3, 5});
  CHECK_THROWS_AS(ops::accumulate_counts(total, Tensor::zeros({2}, DType::i64)), ArgumentError);
  CHECK_THROWS_AS(ops::accumulate_counts(total, Tensor::zeros({3}, DType::f64)), ArgumentError);
}

TEST_CASE("a bias moves against the load", "[unit][ops]") {
  const Tensor bias = Tensor::from<float>({0.0f, 1.0f, -1.0f, 0.25f}, {4});
  ops::follow_load(bias, Tensor::from<std::int64_t>({0, 9, 3, 0}, {1, 4}), 0.5);
  CHECK(bias.to_vector<float>() == std::vector<float>{0.5f, 0.5f, -1.0f, 0.75f});
  CHECK_THROWS_AS(ops::follow_load(bias, Tensor::zeros({3}, DType::i64), 0.5), ArgumentError);
}

TEST_CASE("a share of sequences is drawn by their content", "[unit][ops]") {
  const std::int64_t sequences = 2000, length = 3;
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < sequences * length; ++i) {
    ids.push_back(static_cast<std::int32_t>(i * i % 977));
  }
  const Tensor batch = Tensor::from(ids, {sequences, length});
  const Tensor chosen = ops::tokens_of_share(batch, 0.3);
  std::int64_t drawn = 0;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::uint8_t* of_sequence = chosen.data<std::uint8_t>() + s * length;
    CHECK((of_sequence[0] == of_sequence[1] && of_sequence[1] == of_sequence[2]));
    drawn += of_sequence[0];
    // alone it falls the same way
    const Tensor alone = ops::tokens_of_share(batch.slice(s, s + 1), 0.3);
    CHECK(alone.data<std::uint8_t>()[0] == of_sequence[0]);
  }
  CHECK(std::abs(static_cast<double>(drawn) / sequences - 0.3) < 0.05);
  // Order matters, padding too.
  const auto fate = [](const std::vector<std::int32_t>& values) {
    std::vector<int> falls;
    for (const double share : {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}) {
      const Tensor one = Tensor::from(values, {1, static_cast<std::int64_t>(values.size())});
      falls.push_back(ops::tokens_of_share(one, share).data<std::uint8_t>()[0]);
    }
    return falls;
  };
  CHECK(fate({1, 2, 3}) != fate({3, 2, 1}));
  for (const double share : {0.0, 1.0}) {
    const Tensor all = ops::tokens_of_share(batch, share);
    for (std::int64_t i = 0; i < all.numel(); ++i) {
      CHECK(all.data<std::uint8_t>()[i] == static_cast<std::uint8_t>(share));
    }
  }
  CHECK_THROWS_AS(ops::tokens_of_share(batch, 1.5), ArgumentError);
}
