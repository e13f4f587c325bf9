#include "parallel/collectives.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "parallel/mpi_check.h"
#include "parallel/reduce_kernel.h"

namespace fulcrum::parallel {
namespace {

using Counts = std::vector<std::int64_t>;
using Stage = Operation::Stage;

// Below this many bytes, all ranks together, a reduction is gathered whole everywhere: one exchange
// instead of two.
constexpr std::int64_t kSmallReduction = 64 * 1024;

char* at(void* data, std::int64_t bytes) { return static_cast<char*>(data) + bytes; }
const char* at(const void* data, std::int64_t bytes) {
  return static_cast<const char*>(data) + bytes;
}

void copy(void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

Counts offsets_of(const Counts& counts) {
  Counts offsets(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), std::int64_t{0});
  return offsets;
}

Request start(std::shared_ptr<Group> group, const char* name, std::int64_t bytes,
              std::vector<Stage> stages) {
  const int tag = group->size > 1 ? group->take_tag() : 0;
  auto operation =
      std::make_shared<Operation>(std::move(group), name, bytes, tag, std::move(stages));
  if (operation->advance()) return {};
  return Request(std::move(operation));
}

// Pieces of an array, one for each rank, and room for what the others send of this rank's piece.
struct Pieces {
  Counts counts;  // elements
  Counts offsets;
  Tensor received;  // u8 [(size - 1) · own bytes]

  Pieces(const Group& group, Counts per_rank, DType dtype)
      : counts(std::move(per_rank)),
        offsets(offsets_of(counts)),
        received(
            Tensor::empty({(group.size - 1) * counts[group.rank] * size_of(dtype)}, DType::u8)) {}
};

// Sends each rank its piece of data and receives this rank's piece of everybody.
void scatter_pieces(Operation& operation, const Pieces& pieces, const void* data,
                    std::int64_t element) {
  const Group& group = operation.group();
  const std::int64_t own = pieces.counts[group.rank] * element;
  for (int i = 1; i < group.size; ++i) {
    const int source = (group.rank + group.size - i) % group.size;
    operation.receive(
        source, at(pieces.received.raw(), (source < group.rank ? source : source - 1) * own), own);
  }
  for (int i = 1; i < group.size; ++i) {
    const int peer = (group.rank + i) % group.size;
    operation.send(peer, at(data, pieces.offsets[peer] * element), pieces.counts[peer] * element);
  }
}

// Reduces this rank's piece in rank order.
void reduce_piece(const Group& group, const Pieces& pieces, const void* data, void* out,
                  DType dtype, Reduce op) {
  const std::int64_t own = pieces.counts[group.rank] * size_of(dtype);
  std::vector<const void*> parts;
  for (int r = 0; r < group.size; ++r) {
    if (r == group.rank) {
      parts.push_back(at(data, pieces.offsets[r] * size_of(dtype)));
    } else {
      parts.push_back(at(pieces.received.raw(), (r < group.rank ? r : r - 1) * own));
    }
  }
  reduce_parts(parts, out, pieces.counts[group.rank], dtype, op);
}

void gather_pieces(Operation& operation, const void* own, void* data, const Counts& bytes) {
  const Group& group = operation.group();
  const Counts offsets = offsets_of(bytes);
  for (int i = 1; i < group.size; ++i) {
    const int source = (group.rank + group.size - i) % group.size;
    operation.receive(source, at(data, offsets[source]), bytes[source]);
  }
  for (int i = 1; i < group.size; ++i) {
    operation.send((group.rank + i) % group.size, own, bytes[group.rank]);
  }
  copy(at(data, offsets[group.rank]), own, bytes[group.rank]);
}

}  // namespace

void require_summable(const char* op, const Tensor& x) {
  const DType dtype = x.dtype();
  const bool anywhere = dtype == DType::f32 || dtype == DType::f64 || dtype == DType::i64;
  const bool on_gpu = dtype == DType::bf16 || dtype == DType::i32 || dtype == DType::u8;
  FULCRUM_REQUIRE(anywhere || (on_gpu && x.device().is_cuda()),
                  "{}: f32, f64 or i64, on a GPU also bf16, i32 or u8; got {} {} on {}", op, dtype,
                  x.shape(), x.device());
}

Request start_barrier(std::shared_ptr<Group> group) {
  return start(std::move(group), "barrier", 0, {[](Operation& operation) {
                 MPI_Request request;
                 FULCRUM_MPI(MPI_Ibarrier(operation.group().comm, &request));
                 operation.add(request);
               }});
}

Request start_broadcast(std::shared_ptr<Group> group, Tensor owner, void* data, std::int64_t bytes,
                        int root) {
  return start(std::move(group), "broadcast", bytes, {[=, keep = owner](Operation& operation) {
                 for (std::int64_t done = 0; done < bytes; done += max_message_bytes()) {
                   const auto count = static_cast<int>(std::min(max_message_bytes(), bytes - done));
                   MPI_Request request;
                   FULCRUM_MPI(MPI_Ibcast(at(data, done), count, MPI_BYTE, root,
                                          operation.group().comm, &request));
                   operation.add(request);
                 }
               }});
}

Request start_all_reduce(std::shared_ptr<Group> group, Tensor owner, void* data, std::int64_t count,
                         DType dtype, Reduce op) {
  const std::int64_t element = size_of(dtype);
  const std::int64_t bytes = count * element;
  const int size = group->size;
  if (bytes * size <= kSmallReduction) {
    const Tensor all = Tensor::empty({size * bytes}, DType::u8);
    const Stage gather = [=, keep = owner](Operation& operation) {
      MPI_Request request;
      FULCRUM_MPI(MPI_Iallgather(data, static_cast<int>(bytes), MPI_BYTE, all.raw(),
                                 static_cast<int>(bytes), MPI_BYTE, operation.group().comm,
                                 &request));
      operation.add(request);
    };
    const Stage reduce = [=](Operation&) {
      std::vector<const void*> parts;
      for (int r = 0; r < size; ++r) parts.push_back(at(all.raw(), r * bytes));
      reduce_parts(parts, data, count, dtype, op);
    };
    return start(std::move(group), "all_reduce", bytes, {gather, reduce});
  }
  Counts counts;
  for (int r = 0; r < size; ++r) counts.push_back(count / size + (r < count % size ? 1 : 0));
  const Pieces pieces(*group, std::move(counts), dtype);
  const Stage scatter = [=](Operation& operation) {
    scatter_pieces(operation, pieces, data, element);
  };
  const Stage gather = [=, keep = owner](Operation& operation) {
    const Group& ranks = operation.group();
    void* own = at(data, pieces.offsets[ranks.rank] * element);
    reduce_piece(ranks, pieces, data, own, dtype, op);
    Counts piece_bytes = pieces.counts;
    for (std::int64_t& n : piece_bytes) n *= element;
    gather_pieces(operation, own, data, piece_bytes);
  };
  return start(std::move(group), "all_reduce", bytes, {scatter, gather});
}

Request start_reduce_scatter(std::shared_ptr<Group> group, std::vector<RankParts> list) {
  std::vector<Pieces> pieces;
  std::int64_t bytes = 0;
  for (const RankParts& part : list) {
    pieces.emplace_back(*group, part.counts, part.x.dtype());
    bytes += part.x.bytes();
  }
  const Stage scatter = [=](Operation& operation) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      scatter_pieces(operation, pieces[i], list[i].x.raw(), size_of(list[i].x.dtype()));
    }
  };
  const Stage reduce = [=](Operation& operation) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      reduce_piece(operation.group(), pieces[i], list[i].x.raw(), list[i].out.raw(),
                   list[i].x.dtype(), Reduce::sum);
    }
  };
  return start(std::move(group), "reduce_scatter", bytes, {scatter, reduce});
}

Request start_all_gather(std::shared_ptr<Group> group, std::vector<RankParts> list) {
  std::int64_t bytes = 0;
  for (const RankParts& part : list) bytes += part.out.bytes();
  return start(std::move(group), "all_gather", bytes, {[list](Operation& operation) {
                 for (const RankParts& part : list) {
                   gather_pieces(operation, part.x.raw(), part.out.raw(), part.counts);
                 }
               }});
}

Request start_all_to_all(std::shared_ptr<Group> group, Tensor x, Counts send_bytes, Tensor out,
                         Counts receive_bytes) {
  return start(std::move(group), "all_to_all", x.bytes(), {[=](Operation& operation) {
                 post_all_to_all(operation, x.raw(), send_bytes, out.raw(), receive_bytes);
               }});
}

void post_all_to_all(Operation& operation, const void* x, const Counts& send_bytes, void* out,
                     const Counts& receive_bytes) {
  const Group& group = operation.group();
  const Counts from = offsets_of(send_bytes);
  const Counts to = offsets_of(receive_bytes);
  for (int i = 1; i < group.size; ++i) {
    const int source = (group.rank + group.size - i) % group.size;
    operation.receive(source, at(out, to[source]), receive_bytes[source]);
  }
  for (int i = 1; i < group.size; ++i) {
    const int peer = (group.rank + i) % group.size;
    operation.send(peer, at(x, from[peer]), send_bytes[peer]);
  }
  copy(at(out, to[group.rank]), at(x, from[group.rank]), send_bytes[group.rank]);
}

}  // namespace fulcrum::parallel
