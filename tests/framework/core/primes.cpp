#include "framework/core/primes.h"

#include <vector>

#include "tests/catch.h"

using fulcrum::is_prime;

TEST_CASE("primes below 100,000 agree with a sieve", "[unit][core]") {
  constexpr std::uint64_t kEnd = 100000;
  std::vector<bool> composite(kEnd, false);
  std::uint64_t wrong = 0;
  for (std::uint64_t n = 0; n < kEnd; ++n) {
    const bool prime = n >= 2 && !composite[n];
    if (prime) {
      for (std::uint64_t m = n * n; m < kEnd; m += n) composite[m] = true;
    }
    wrong += is_prime(n) != prime;
  }
  CHECK(wrong == 0);
}

TEST_CASE("large primes and pseudoprimes", "[unit][core]") {
  CHECK(is_prime(18446744073709551557u));  // the largest of 64 bits
  CHECK(is_prime(2305843009213693951u));   // 2⁶¹ − 1
  CHECK_FALSE(is_prime(18446744073709551615u));
  CHECK_FALSE(is_prime(3215031751u));           // strong pseudoprime to 2, 3, 5, 7
  CHECK_FALSE(is_prime(341550071728321u));      // … to 2 … 17
  CHECK_FALSE(is_prime(3825123056546413051u));  // … to 2 … 23
  CHECK_FALSE(is_prime(4294967291u * std::uint64_t{4294967279u}));
}
