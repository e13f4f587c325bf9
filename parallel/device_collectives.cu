#include <algorithm>

#include "framework/core/cuda_check.h"
#include "parallel/device_collectives.h"
#include "parallel/device_group.h"
#include "parallel/nccl_check.h"

namespace fulcrum::parallel::cuda {
namespace {

using Counts = std::vector<std::int64_t>;

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    case DType::u8:
      return ncclUint8;
    default:
      throw ArgumentError(FULCRUM_FORMAT("NCCL does not sum {}", name_of(dtype)));
  }
}

char* at(const Tensor& x, std::int64_t bytes) { return static_cast<char*>(x.raw()) + bytes; }

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

bool equal(const Counts& counts) {
  return std::equal(counts.begin() + 1, counts.end(), counts.begin());
}

std::vector<Tensor> tensors_of(const std::vector<RankParts>& list) {
  std::vector<Tensor> tensors;
  for (const RankParts& part : list) tensors.insert(tensors.end(), {part.x, part.out});
  return tensors;
}

}  // namespace

Request broadcast(const std::shared_ptr<Group>& group, const Tensor& x, int root) {
  return DeviceGroup::of(group).run(
      *group, "broadcast", x.bytes(), {x}, [&](ncclComm_t comm, cudaStream_t stream) {
        FULCRUM_NCCL(
            ncclBroadcast(x.raw(), x.raw(), size(x.bytes()), ncclUint8, root, comm, stream));
      });
}

Request all_reduce(const std::shared_ptr<Group>& group, const Tensor& x, Reduce op) {
  const ncclDataType_t type = type_of(x.dtype());
  return DeviceGroup::of(group).run(
      *group, "all_reduce", x.bytes(), {x}, [&](ncclComm_t comm, cudaStream_t stream) {
        FULCRUM_NCCL(ncclAllReduce(x.raw(), x.raw(), size(x.numel()), type,
                                   op == Reduce::sum ? ncclSum : ncclMax, comm, stream));
      });
}

Request reduce_scatter(const std::shared_ptr<Group>& group, const std::vector<RankParts>& list) {
  std::int64_t bytes = 0;
  for (const RankParts& part : list) bytes += part.x.bytes();
  return DeviceGroup::of(group).run(
      *group, "reduce_scatter", bytes, tensors_of(list), [&](ncclComm_t comm, cudaStream_t stream) {
        for (const RankParts& part : list) {
          const ncclDataType_t type = type_of(part.x.dtype());
          if (equal(part.counts)) {
            if (part.counts[0] == 0) continue;
            FULCRUM_NCCL(ncclReduceScatter(part.x.raw(), part.out.raw(), size(part.counts[0]), type,
                                           ncclSum, comm, stream));
            continue;
          }
          std::int64_t offset = 0;
          for (int root = 0; root < group->size; ++root) {
            const std::int64_t count = part.counts[root];
            if (count == 0) continue;
            FULCRUM_NCCL(ncclReduce(at(part.x, offset), part.out.raw(), size(count), type, ncclSum,
                                    root, comm, stream));
            offset += count * size_of(part.x.dtype());
          }
        }
      });
}

Request all_gather(const std::shared_ptr<Group>& group, const std::vector<RankParts>& list) {
  std::int64_t bytes = 0;
  for (const RankParts& part : list) bytes += part.out.bytes();
  return DeviceGroup::of(group).run(
      *group, "all_gather", bytes, tensors_of(list), [&](ncclComm_t comm, cudaStream_t stream) {
        for (const RankParts& part : list) {
          if (equal(part.counts)) {
            if (part.counts[0] == 0) continue;
            FULCRUM_NCCL(ncclAllGather(part.x.raw(), part.out.raw(), size(part.counts[0]),
                                       ncclUint8, comm, stream));
            continue;
          }
          std::int64_t offset = 0;
          for (int root = 0; root < group->size; ++root) {
            const std::int64_t count = part.counts[root];
            if (count == 0) continue;
            FULCRUM_NCCL(ncclBroadcast(part.x.raw(), at(part.out, offset), size(count), ncclUint8,
                                       root, comm, stream));
            offset += count;
          }
        }
      });
}

Request all_to_all(const std::shared_ptr<Group>& group, const Tensor& x, const Counts& send_bytes,
                   const Tensor& out, const Counts& receive_bytes) {
  return DeviceGroup::of(group).run(
      *group, "all_to_all", x.bytes(), {x, out}, [&](ncclComm_t comm, cudaStream_t stream) {
        std::int64_t from = 0;
        std::int64_t to = 0;
        for (int peer = 0; peer < group->size; ++peer) {
          const std::int64_t sent = send_bytes[peer];
          const std::int64_t received = receive_bytes[peer];
          if (peer == group->rank) {
            if (sent > 0) {
              FULCRUM_CUDA_CHECK(cudaMemcpyAsync(at(out, to), at(x, from), size(sent),
                                                 cudaMemcpyDeviceToDevice, stream));
            }
          } else {
            if (sent > 0) {
              FULCRUM_NCCL(ncclSend(at(x, from), size(sent), ncclUint8, peer, comm, stream));
            }
            if (received > 0) {
              FULCRUM_NCCL(ncclRecv(at(out, to), size(received), ncclUint8, peer, comm, stream));
            }
          }
          from += sent;
          to += received;
        }
      });
}

}  // namespace fulcrum::parallel::cuda
