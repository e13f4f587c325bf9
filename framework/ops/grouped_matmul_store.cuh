#pragma once
// How a grouped product's results on Hopper go from the registers of a warpgroup to memory: each
// warp its 16 rows, 128 bytes of each at a time, through its own part of shared memory, so that 8
// neighbouring threads write whole lines.

#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/grouped_matmul_tiles.cuh"

namespace fulcrum::ops::cuda {

template <Form kForm, class Out>
struct GroupedStore {
  static constexpr int kPiece = kWide<Out>;  // elements of 16 bytes
  static constexpr int kStep = 8 * kPiece;   // columns that go at a time
  static constexpr bool kWords = sizeof(Out) == 4;

  __device__ static Out* result(const GroupedProduct& p, const GroupedTile& tile, int row,
                                int column) {
    const std::int64_t base =
        kForm == Form::weight ? static_cast<std::int64_t>(tile.group) * p.out_rows : 0;
    return static_cast<Out*>(p.out) + (base + row) * p.columns + column;
  }

  // Activations are read again soon; gradients of weights only when the step has them all.
  __device__ static void write(Out* to, const uint4& bits) {
    if constexpr (kForm == Form::weight) {
      __stcs(reinterpret_cast<uint4*>(to), bits);
    } else {
      *reinterpret_cast<uint4*>(to) = bits;
    }
  }

  __device__ static uint4 sum(const uint4& a, const uint4& b) {
    using Values = Pack<Out, kPiece>;
    Values x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) x.set(i, x[i] + y[i]);
    uint4 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
  }

  // 16-byte piece c of row r of a step lies at 128 r + 16 (c ^ swizzle(r)).
  __device__ static int swizzle(int row) { return kWords ? row % 4 * 2 : row % 8; }

  // Puts the sums of a step into shared memory.
  __device__ __forceinline__ static void stage(const float* sums, int lane, std::uint32_t buffer) {
    if constexpr (kWords) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = lane / 4 + 8 * h;
          const int piece = 2 * j + lane % 4 / 2;
          const std::uint32_t to =
              buffer + row * 128 + ((piece ^ swizzle(row)) * 16) + lane % 2 * 8;
          const float* d = sums + 4 * j + 2 * h;
          asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(d[0]), "f"(d[1])
                       : "memory");
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::uint32_t m[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* d = sums + 8 * j + 2 * i;
          const __nv_bfloat162 pair = __floats2bfloat162_rn(d[0], d[1]);
          memcpy(&m[i], &pair, 4);
        }
        // Matrices 0 and 1 are rows 0..7 and 8..15 of 8 columns, 2 and 3 of the next 8.
        const int row = lane % 16;
        const int piece = 2 * j + lane / 16;
        const std::uint32_t to = buffer + row * 128 + (piece ^ swizzle(row)) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                     : "memory");
      }
    }
  }

  // Asks for what 16 rows from `row` are to be added to: 24 KB a warp come while the first steps
  // are staged, and no register waits for them.
  template <int kColumns>
  __device__ static void prefetch(int row, const GroupedTile& tile, const GroupedProduct& p,
                                  int lane) {
    constexpr int kLines = kColumns / kStep;
    for (int i = lane; i < 16 * kLines; i += 32) {
      const int r = row + i / kLines;
      const int column = tile.column + i % kLines * kStep;
      if (r < tile.row_end && column < p.columns) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(result(p, tile, r, column)));
      }
    }
  }

  // Writes or, with kAdd, adds kColumns sums of 16 rows from `row`. Every element has one writer.
  template <int kColumns, bool kAdd>
  __device__ __forceinline__ static void rows(const float* sums, int row, const GroupedTile& tile,
                                              const GroupedProduct& p, int lane,
                                              std::uint32_t buffer) {
#pragma unroll
    for (int s = 0; s < kColumns / kStep; ++s) {
      __syncwarp();  // the step before has been read
      stage(sums + s * kStep / 2, lane, buffer);
      __syncwarp();
      const int column = tile.column + s * kStep + lane % 8 * kPiece;
      uint4 old[4] = {};
      if constexpr (kAdd) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = row + lane / 8 + 4 * i;
          if (r < tile.row_end && column < p.columns) {
            old[i] = __ldcs(reinterpret_cast<const uint4*>(result(p, tile, r, column)));
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = lane / 8 + 4 * i;
        uint4 bits;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
                     : "r"(buffer + r * 128 + (lane % 8 ^ swizzle(r)) * 16)
                     : "memory");
        if constexpr (kAdd) bits = sum(bits, old[i]);
        if (row + r < tile.row_end && column < p.columns) {
          write(result(p, tile, row + r, column), bits);
        }
      }
    }
  }

  // Zeros in a tile from `row`, kRows × kColumns at most, by the 128 threads of a warpgroup.
  template <int kRows, int kColumns>
  __device__ static void zeros(int row, const GroupedTile& tile, const GroupedProduct& p) {
    for (int i = threadIdx.x % 128; i < kRows * (kColumns / kPiece); i += 128) {
      const int r = row + i / (kColumns / kPiece);
      const int column = tile.column + i % (kColumns / kPiece) * kPiece;
      if (r < tile.row_end && column < p.columns) {
        write(result(p, tile, r, column), make_uint4(0, 0, 0, 0));
      }
    }
  }
};

}  // namespace fulcrum::ops::cuda
