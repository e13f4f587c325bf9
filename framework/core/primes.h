#pragma once
// Primes of 64 bits.

#include <cstdint>

namespace fulcrum {

// Exact for every n: Miller–Rabin with the first twelve primes as bases decides below 3.18e23
// (Sorenson and Webster 2015, "Strong pseudoprimes to twelve prime bases").
bool is_prime(std::uint64_t n);

}  // namespace fulcrum
