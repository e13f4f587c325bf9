#include "parallel/communicator.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "parallel/operation.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::random;
using fulcrum::testing::world;

namespace {

// Sizes on both sides of the small-message path, not divisible by the number of ranks, and none at
// all.
const std::vector<std::int64_t> kSizes = {0, 1, 3, 1000, 40001};

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

// Sum over ranks in rank order, computed by this rank alone.
Tensor expected_sum(std::int64_t n, DType dtype) {
  Tensor total = random({n}, 100).to(dtype);
  for (int r = 1; r < world().size(); ++r) {
    const Tensor x = random({n}, 100 + static_cast<std::uint64_t>(r)).to(dtype);
    dispatch_floating("test", dtype, [&]<class T>() {
      for (std::int64_t i = 0; i < n; ++i) total.data<T>()[i] += x.data<T>()[i];
    });
  }
  return total;
}

// Cuts messages into small pieces while it lives.
struct ShortMessages {
  std::int64_t before = max_message_bytes();
  ShortMessages() { max_message_bytes() = 4096; }
  ~ShortMessages() { max_message_bytes() = before; }
};

}  // namespace

TEST_CASE("all_reduce sums in rank order", "[mpi]") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t n : kSizes) {
      const Tensor x = random({n}, 100 + static_cast<std::uint64_t>(world().rank())).to(dtype);
      world().all_reduce(x);
      CHECK(same_bits(x, expected_sum(n, dtype)));
    }
  }
}

TEST_CASE("all_reduce of integers, spans and maxima", "[mpi]") {
  const std::int64_t rank = world().rank();
  const std::int64_t size = world().size();
  std::vector<std::int64_t> values(40001);
  std::iota(values.begin(), values.end(), rank);
  world().all_reduce(std::span(values));
  CHECK(values.front() == size * (size - 1) / 2);
  CHECK(values.back() == 40000 * size + size * (size - 1) / 2);

  std::vector<float> floats = {static_cast<float>(-rank), static_cast<float>(rank), -1.0F};
  if (rank == 0) floats[2] = std::numeric_limits<float>::quiet_NaN();
  world().all_reduce(std::span(floats), Reduce::max);
  CHECK(floats[0] == 0.0F);
  CHECK(floats[1] == static_cast<float>(size - 1));
  CHECK(std::isnan(floats[2]));
}

TEST_CASE("scalars over the ranks", "[mpi]") {
  const std::int64_t rank = world().rank();
  const std::int64_t size = world().size();
  CHECK(world().sum(0.5) == 0.5 * static_cast<double>(size));
  CHECK(world().sum(rank) == size * (size - 1) / 2);
  CHECK(world().max(-rank) == 0);
  CHECK(world().max(static_cast<double>(rank)) == static_cast<double>(size - 1));
  CHECK(world().any(rank == size - 1));
  CHECK_FALSE(world().any(false));
  CHECK(world().all_gather(rank * rank).back() == (size - 1) * (size - 1));
}

TEST_CASE("reduce_scatter and all_gather give the bits of all_reduce", "[mpi]") {
  const int size = world().size();
  for (const std::int64_t last : {0, 7, 20011}) {
    // Uneven: rank r keeps r rows, the last rank more.
    std::vector<std::int64_t> rows(static_cast<std::size_t>(size));
    std::iota(rows.begin(), rows.end(), 0);
    rows.back() += last;
    const std::int64_t n = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
    const Tensor x =
        random({n, 2}, 100 + static_cast<std::uint64_t>(world().rank())).to(DType::f32);
    const Tensor mine = world().reduce_scatter(x, rows);
    CHECK(mine.shape() == Shape({rows[static_cast<std::size_t>(world().rank())], 2}));
    const Tensor all = world().all_gather(mine, rows);
    CHECK(same_bits(all, expected_sum(2 * n, DType::f32)));
  }
}

TEST_CASE("broadcast", "[mpi]") {
  for (int root = 0; root < world().size(); ++root) {
    const Tensor x = random({1003}, static_cast<std::uint64_t>(world().rank()));
    world().broadcast(x, root);
    CHECK(same_bits(x, random({1003}, static_cast<std::uint64_t>(root))));
    const std::string text = world().rank() == root ? "from " + std::to_string(root) : "";
    CHECK(world().broadcast(text, root) == "from " + std::to_string(root));
  }
  CHECK_THROWS_AS(world().broadcast(std::string(), world().size()), ArgumentError);
}

TEST_CASE("all_to_all with uneven and empty parts", "[mpi]") {
  // Rank s sends (s + 2·r) % 3 rows to rank r, each filled with 100·s + r.
  const int size = world().size();
  const int me = world().rank();
  const auto count = [](int s, int r) { return std::int64_t{(s + 2 * r) % 3}; };
  std::vector<std::int64_t> send;
  std::vector<std::int64_t> receive;
  std::vector<float> values;
  for (int r = 0; r < size; ++r) {
    send.push_back(count(me, r));
    receive.push_back(count(r, me));
    values.insert(values.end(), static_cast<std::size_t>(3 * send.back()),
                  static_cast<float>(100 * me + r));
  }
  CHECK(world().all_to_all(send) == receive);
  const auto rows = static_cast<std::int64_t>(values.size() / 3);
  const Tensor out = world().all_to_all(Tensor::from(values, {rows, 3}), send, receive);
  std::vector<float> expected;
  for (int s = 0; s < size; ++s) {
    expected.insert(expected.end(),
                    static_cast<std::size_t>(3 * receive[static_cast<std::size_t>(s)]),
                    static_cast<float>(100 * s + me));
  }
  CHECK(out.to_vector<float>() == expected);
}

TEST_CASE("nobody has anything to exchange", "[mpi]") {
  const std::vector<std::int64_t> none(static_cast<std::size_t>(world().size()), 0);
  const Tensor empty = Tensor::empty({0, 5}, DType::i32);
  CHECK(world().all_to_all(empty, none, none).shape() == Shape({0, 5}));
  CHECK(world().all_gather(empty).shape() == Shape({0, 5}));
}

TEST_CASE("long messages are cut", "[mpi]") {
  const ShortMessages guard;
  const Tensor x = random({30001}, 100 + static_cast<std::uint64_t>(world().rank()));
  Request sum = world().all_reduce_async(x);
  sum.wait();
  CHECK(same_bits(x, expected_sum(30001, DType::f64)));
  world().broadcast(x, 0);
  CHECK(world().all_gather(x).dim(0) == 30001 * world().size());
}

TEST_CASE("several collectives under way at once", "[mpi]") {
  std::vector<Tensor> tensors;
  std::vector<Request> requests;
  for (const std::int64_t n : {50000, 3, 20000, 1}) {
    tensors.push_back(random({n}, 100 + static_cast<std::uint64_t>(world().rank())));
    requests.push_back(world().all_reduce_async(tensors.back()));
  }
  for (std::size_t i = requests.size(); i-- > 0;) {
    while (!requests[i].test()) {
    }
    CHECK(same_bits(tensors[i], expected_sum(tensors[i].numel(), DType::f64)));
  }
  world().barrier();
}

TEST_CASE("split", "[mpi]") {
  const Communicator half = world().split(world().rank() % 2, -world().rank(), "half");
  CHECK(half.size() == (world().size() + 1 - world().rank() % 2) / 2);
  std::int64_t expected = 0;
  for (int r = world().rank() % 2; r < world().size(); r += 2) expected += r;
  CHECK(half.sum(std::int64_t{world().rank()}) == expected);
  CHECK(half.all_gather(std::int64_t{world().rank()})[static_cast<std::size_t>(half.rank())] ==
        world().rank());
}

TEST_CASE("collectives refuse wrong arguments on every rank", "[mpi]") {
  CHECK_THROWS_AS(
      world().reduce_scatter(Tensor::zeros({3}, DType::f32), std::vector<std::int64_t>{}),
      ArgumentError);
  if (!world().alone())
    CHECK_THROWS_AS(world().all_reduce(Tensor::zeros({3}, DType::bf16)), ArgumentError);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(world().size()), 1);
  CHECK_THROWS_AS(world().all_gather(Tensor::zeros({2}, DType::f32), rows), ArgumentError);
}

TEST_CASE("a communicator of one rank needs no MPI", "[unit][parallel]") {
  const Communicator one;
  const Tensor x = random({5}, 1);
  const Tensor before = x.clone();
  one.all_reduce(x);
  one.broadcast(x, 0);
  one.barrier();
  CHECK(same_bits(x, before));
  CHECK(same_bits(one.all_gather(x), x));
  CHECK(same_bits(one.reduce_scatter(x, std::vector<std::int64_t>{5}), x));
  CHECK(
      same_bits(one.all_to_all(x, std::vector<std::int64_t>{5}, std::vector<std::int64_t>{5}), x));
  CHECK(one.split(3, 1, "part").alone());
  CHECK(one.sum(2.5) == 2.5);
}
