// Collectives on device memory. Several ranks on one GPU: see tests/gpu.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "framework/core/cuda_graph.h"
#include "framework/core/cuda_memory.h"
#include "parallel/communicator.h"
#include "tests/catch.h"
#include "tests/gradient_check.h"
#include "tests/parallel/world.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::random;
using fulcrum::testing::world;
using fulcrum::testing::world_gpu;

namespace {

const std::vector<std::int64_t> kSizes = {0, 1, 3, 1000, 40001, 1 << 20};
const std::vector<DType> kSummed = {DType::f32, DType::f64, DType::bf16,
                                    DType::i64, DType::i32, DType::u8};

// Small integers, which every dtype holds exactly: f(i) for element i.
template <class F>
Tensor integers(std::int64_t n, DType dtype, F&& f) {
  const auto fill = [&]<class T>(DType type) {
    const Tensor host = Tensor::empty({n}, type);
    for (std::int64_t i = 0; i < n; ++i) host.data<T>()[i] = static_cast<T>(f(i));
    return host;
  };
  switch (dtype) {
    case DType::i64:
      return fill.template operator()<std::int64_t>(dtype);
    case DType::i32:
      return fill.template operator()<std::int32_t>(dtype);
    case DType::u8:
      return fill.template operator()<std::uint8_t>(dtype);
    default:
      return fill.template operator()<double>(DType::f64).to(dtype);
  }
}

bool same(const Tensor& device, const Tensor& host) {
  const Tensor copy = device.to(Device{});
  return copy.dtype() == host.dtype() && copy.bytes() == host.bytes() &&
         std::memcmp(copy.raw(), host.raw(), static_cast<std::size_t>(host.bytes())) == 0;
}

// Rank r gets r + last rows, the first none.
std::vector<std::int64_t> uneven_rows(std::int64_t last) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(world().size()));
  std::iota(rows.begin(), rows.end(), 0);
  rows.back() += last;
  return rows;
}

std::int64_t total(const std::vector<std::int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

std::int64_t first_row(const std::vector<std::int64_t>& rows, int rank) {
  return std::accumulate(rows.begin(), rows.begin() + rank, std::int64_t{0});
}

}  // namespace

TEST_CASE("all_reduce on GPUs", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const std::int64_t rank = world().rank();
  const std::int64_t size = world().size();
  for (const DType dtype : kSummed) {
    for (const std::int64_t n : kSizes) {
      INFO(name_of(dtype) << " " << n);
      const Tensor x = integers(n, dtype, [&](auto i) { return i % 5 + rank; }).to(gpu);
      world().all_reduce(x);
      CHECK(same(
          x, integers(n, dtype, [&](auto i) { return size * (i % 5) + size * (size - 1) / 2; })));
      const Tensor y = integers(n, dtype, [&](auto i) { return (i + rank) % size; }).to(gpu);
      world().all_reduce(y, Reduce::max);
      CHECK(same(y, integers(n, dtype, [&](auto) { return size - 1; })));
    }
  }
}

TEST_CASE("sums on GPUs have the same bits on all ranks and in every run", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const Tensor host =
      random({100003}, 100 + static_cast<std::uint64_t>(world().rank())).to(DType::f32);
  const Tensor first = host.to(gpu);
  world().all_reduce(first);
  const Tensor second = host.to(gpu);
  world().all_reduce(second);
  const Tensor bits = first.to(Device{});
  CHECK(same(second, bits));
  const Tensor root = bits.clone();
  world().broadcast(root, 0);
  CHECK(std::memcmp(root.raw(), bits.raw(), static_cast<std::size_t>(bits.bytes())) == 0);
  Tensor exact = Tensor::zeros({100003}, DType::f64);
  for (int r = 0; r < world().size(); ++r) {
    const Tensor part =
        random({100003}, 100 + static_cast<std::uint64_t>(r)).to(DType::f32).to(DType::f64);
    for (std::int64_t i = 0; i < 100003; ++i) exact.data<double>()[i] += part.data<double>()[i];
  }
  CHECK(testing::relative_error(bits, exact) < 1e-6);
}

TEST_CASE("reduce_scatter and all_gather on GPUs", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const int rank = world().rank();
  const std::int64_t size = world().size();
  std::vector<std::vector<std::int64_t>> cuts = {uneven_rows(0), uneven_rows(7), uneven_rows(9011)};
  for (const std::int64_t each : {0, 1, 4099}) {
    cuts.emplace_back(static_cast<std::size_t>(size), each);
  }
  constexpr std::int64_t kWidth = 3;
  for (const DType dtype : kSummed) {
    std::vector<RankRows> scattered;
    std::vector<RankRows> gathered;
    std::vector<Tensor> sums;
    for (const auto& rows : cuts) {
      INFO(name_of(dtype) << ", " << total(rows) << " rows, the last rank " << rows.back());
      const std::int64_t n = total(rows) * kWidth;
      const Tensor x =
          integers(n, dtype, [&](auto i) { return i % 7 + rank; }).reshape({-1, kWidth}).to(gpu);
      const Tensor sum = integers(n, dtype, [&](auto i) {
                           return size * (i % 7) + size * (size - 1) / 2;
                         }).reshape({-1, kWidth});
      const std::int64_t first = first_row(rows, rank);
      const Tensor own = sum.slice(first, first + rows[static_cast<std::size_t>(rank)]);
      const Tensor mine = world().reduce_scatter(x, rows);
      CHECK(mine.shape() == own.shape());
      CHECK(same(mine, own));
      CHECK(same(world().all_gather(mine, rows), sum));
      scattered.push_back({x, rows});
      gathered.push_back({x.clone(), rows});
      gathered.back()
          .tensor.slice(first, first + rows[static_cast<std::size_t>(rank)])
          .copy_from(mine);
      sums.push_back(sum);
    }
    Request scatter = world().reduce_scatter_async(scattered);
    Request gather = world().all_gather_async(gathered);
    scatter.wait();
    gather.wait();
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      INFO(name_of(dtype) << ", cut " << i);
      const std::int64_t first = first_row(cuts[i], rank);
      const std::int64_t end = first + cuts[i][static_cast<std::size_t>(rank)];
      CHECK(same(scattered[i].tensor.slice(first, end), sums[i].slice(first, end)));
      CHECK(same(gathered[i].tensor, sums[i]));
    }
  }
}

TEST_CASE("broadcast on GPUs", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  for (int root = 0; root < world().size(); ++root) {
    for (const std::int64_t n : kSizes) {
      const auto of = [&](int rank) {
        return integers(n, DType::u8, [&](auto i) { return i % 11 + rank; });
      };
      const Tensor x = of(world().rank()).to(gpu);
      world().broadcast(x, root);
      CHECK(same(x, of(root)));
    }
  }
}

TEST_CASE("all_to_all on GPUs with uneven and empty parts", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const int size = world().size();
  const int me = world().rank();
  for (const std::int64_t scale : {0, 1, 5003}) {
    // Rank s sends (s + 2·r) % 3 · scale rows to rank r, each filled with 100·s + r.
    const auto count = [&](int s, int r) { return std::int64_t{(s + 2 * r) % 3} * scale; };
    std::vector<std::int64_t> send;
    std::vector<std::int64_t> receive;
    std::vector<float> values;
    std::vector<float> expected;
    for (int r = 0; r < size; ++r) {
      send.push_back(count(me, r));
      receive.push_back(count(r, me));
      values.insert(values.end(), static_cast<std::size_t>(3 * send.back()),
                    static_cast<float>(100 * me + r));
      expected.insert(expected.end(), static_cast<std::size_t>(3 * receive.back()),
                      static_cast<float>(100 * r + me));
    }
    const Tensor x = Tensor::from(values, {total(send), 3}).to(gpu);
    CHECK(same(world().all_to_all(x, send, receive), Tensor::from(expected, {total(receive), 3})));
  }
}

TEST_CASE("collectives on GPUs of split groups", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const Communicator half = world().split(world().rank() % 2, -world().rank(), "half");
  std::int64_t expected = 0;
  for (int r = world().rank() % 2; r < world().size(); r += 2) expected += r;
  const Tensor x = Tensor::full({1001}, world().rank(), DType::i64, gpu);
  half.all_reduce(x);
  CHECK(same(x, Tensor::full({1001}, static_cast<double>(expected), DType::i64)));
  // Of the same ranks as the world: one NCCL communicator serves both.
  const Communicator again = world().duplicate("again");
  const Tensor y = Tensor::full({5}, 1.0, DType::f32, gpu);
  again.all_reduce(y);
  world().all_reduce(y);
  const double size = world().size();
  CHECK(same(y, Tensor::full({5}, size * size, DType::f32)));
}

TEST_CASE("computation before and after a collective on a GPU waits for it", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const std::int64_t size = world().size();
  constexpr std::int64_t kElements = 3 << 20;
  // Blocks come from the pool and go back while collectives are under way.
  for (int round = 0; round < 20; ++round) {
    std::vector<Request> requests;
    std::vector<Tensor> sums;
    for (int k = 0; k < 3; ++k) {
      Tensor x = Tensor::full({kElements}, round + k, DType::f32, gpu);
      requests.push_back(world().all_reduce_async(x));
      sums.push_back(x);
      const Tensor other = Tensor::full({kElements}, -1.0, DType::f32, gpu);
    }
    {
      // Its tensor is kept by the request alone.
      Request dropped = world().all_reduce_async(Tensor::full({kElements}, 7.0, DType::f32, gpu));
    }
    for (int k = 0; k < 3; ++k) {
      requests[static_cast<std::size_t>(k)].wait();
      const Tensor copy = sums[static_cast<std::size_t>(k)].clone();
      sums[static_cast<std::size_t>(k)].fill(-2.0);
      const Tensor ends = copy.to(Device{});
      CHECK(ends.data<float>()[0] == static_cast<float>(size * (round + k)));
      CHECK(ends.data<float>()[kElements - 1] == static_cast<float>(size * (round + k)));
    }
  }
}

TEST_CASE("collectives inside a CUDA graph", "[gpu][mpi]") {
  const Device gpu = world_gpu();
  const std::int64_t size = world().size();
  const int rank = world().rank();
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(size), 5);
  const Tensor input = Tensor::full({5 * size, 2}, 1.0, DType::f32, gpu);
  Tensor summed;
  Tensor gathered;
  Tensor exchanged;
  const auto work = [&] {
    summed = input.clone();
    Request sum = world().all_reduce_async(summed);
    gathered = Tensor::full(input.shape(), -1.0, DType::f32, gpu);
    gathered.slice(5 * rank, 5 * rank + 5).copy_from(input.slice(0, 5));
    sum.wait();
    world().all_gather_async({{gathered, rows}}).wait();
    exchanged = world().all_to_all(gathered, rows, rows);
  };
  work();
  cuda_synchronize();
  CudaGraph graph;
  graph.capture(work);
  for (int round = 0; round < 5; ++round) {
    input.fill(10.0 * round + rank);
    graph.replay();
    const double all = static_cast<double>(size * 10 * round + size * (size - 1) / 2);
    CHECK(same(summed, Tensor::full(input.shape(), all, DType::f32)));
    const Tensor expected = Tensor::empty(input.shape(), DType::f32);
    for (std::int64_t r = 0; r < size; ++r) {
      expected.slice(5 * r, 5 * r + 5).fill(static_cast<double>(10 * round + r));
    }
    CHECK(same(gathered, expected));
    CHECK(same(exchanged, Tensor::full(input.shape(), 10.0 * round + rank, DType::f32)));
    // Between replays the communicator serves others, too.
    const Tensor x = Tensor::full({33}, rank, DType::i64, gpu);
    world().all_reduce(x);
    CHECK(same(x, Tensor::full({33}, static_cast<double>(size * (size - 1) / 2), DType::i64)));
  }
}
