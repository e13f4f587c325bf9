#include "framework/core/philox.h"

#include <cmath>
#include <numbers>

namespace fulcrum {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c,
                                    std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(a)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char ch : name) hash = (hash ^ static_cast<unsigned char>(ch)) * 0x100000001b3ull;
  return hash;
}

namespace {

std::array<std::uint32_t, 4> block_at(std::uint64_t seed, std::uint64_t stream,
                                      std::uint64_t block) {
  return philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                 static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

double to_unit(std::uint32_t word) { return (word + 0.5) * 0x1p-32; }

// Four normals from the four words of a block (Box-Muller).
std::array<double, 4> normals(const std::array<std::uint32_t, 4>& words) {
  std::array<double, 4> z;
  for (int i = 0; i < 4; i += 2) {
    const double radius = std::sqrt(-2.0 * std::log(to_unit(words[i])));
    const double angle = 2.0 * std::numbers::pi * to_unit(words[i + 1]);
    z[i] = radius * std::cos(angle);
    z[i + 1] = radius * std::sin(angle);
  }
  return z;
}

// Calls value(block index) -> four numbers for each group of four global elements that t touches.
template <class Values>
void fill(const Tensor& t, std::int64_t first, Values&& values) {
  const std::int64_t n = t.numel();
  dispatch_floating("fill", t.dtype(), [&]<class T>() {
    T* p = t.data<T>();
    const std::int64_t first_block = first / 4;
    const std::int64_t last_block = (first + n + 3) / 4;
#pragma omp parallel for schedule(static) if (n > 16384)
    for (std::int64_t block = first_block; block < last_block; ++block) {
      const std::array<double, 4> v = values(static_cast<std::uint64_t>(block));
      for (int k = 0; k < 4; ++k) {
        const std::int64_t i = block * 4 + k - first;
        if (i >= 0 && i < n) p[i] = static_cast<T>(v[k]);
      }
    }
  });
}

}  // namespace

std::uint32_t Random::bits(std::uint64_t index) const {
  return block_at(seed_, stream_, index / 4)[index % 4];
}

double Random::uniform(std::uint64_t index) const { return to_unit(bits(index)); }

std::uint64_t Random::below(std::uint64_t index, std::uint64_t bound) const {
  const std::uint64_t wide = (std::uint64_t{bits(2 * index)} << 32) | bits(2 * index + 1);
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(wide) * bound) >> 64);
}

void fill_normal(const Tensor& t, double std, std::uint64_t seed, std::uint64_t stream,
                 std::int64_t first) {
  fill(t, first, [&](std::uint64_t block) {
    std::array<double, 4> z = normals(block_at(seed, stream, block));
    for (double& v : z) v *= std;
    return z;
  });
}

}  // namespace fulcrum
