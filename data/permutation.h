#pragma once
// A pseudo-random bijection of [0, size), computed element by element: no array, constant time and
// memory at any size.
//
// A balanced Feistel network over the smallest even number of bits that holds size, with Philox as
// its round function, permutes a power of four; values that fall outside are sent through again
// (cycle walking) until they land inside, which keeps it a bijection and takes fewer than four
// passes on average.

#include <cstdint>

namespace fulcrum::data {

class Permutation {
 public:
  // Different (seed, stream) give independent permutations.
  Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream);

  std::int64_t size() const { return size_; }
  // index in [0, size)
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  std::int64_t size_;
  std::uint64_t seed_, stream_;
  int half_bits_ = 1;
};

}  // namespace fulcrum::data
