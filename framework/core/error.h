#pragma once
// The two families of errors, and the checks that throw them.
//
//   UserError      what a user can cause and mend: a configuration, a file, an option. The message
//   names the file, line and
//                  key, the rule, what was found and what is allowed. `main` prints it without a
//                  stack and exits with 2.
//   ArgumentError  an operator called with wrong shapes or dtypes: "op: rule; got …".
//   InternalError  a broken invariant; the message carries rank, file and line.

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace fulcrum {

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A user error about the environment rather than the configuration (a full disk, a corrupt file):
// exit code 1.
struct IoError : UserError {
  using UserError::UserError;
};

struct ArgumentError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

struct InternalError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Rank shown by InternalError messages; -1 (the default) shows none. Set once by parallel/.
void set_error_rank(int rank);

[[noreturn]] void throw_internal(const char* condition, const char* file, int line,
                                 const std::string& message);

}  // namespace fulcrum

// nvcc's front end cannot evaluate fmt's compile-time checks of format strings; in .cu files they
// are checked at run time.
#ifdef __CUDACC__
#define FULCRUM_FORMAT(text, ...) ::fmt::format(::fmt::runtime(text) __VA_OPT__(, ) __VA_ARGS__)
#else
#define FULCRUM_FORMAT(...) ::fmt::format(__VA_ARGS__)
#endif

// Invariant: FULCRUM_CHECK(n > 0, "n is {}", n)
#define FULCRUM_CHECK(condition, ...)                                                         \
  do {                                                                                        \
    if (!(condition))                                                                         \
      ::fulcrum::throw_internal(#condition, __FILE__, __LINE__, FULCRUM_FORMAT(__VA_ARGS__)); \
  } while (0)

// Argument of an operator: FULCRUM_REQUIRE(x.rank() == 2, "matmul: a must have two dimensions; got
// {}", x.shape())
#define FULCRUM_REQUIRE(condition, ...)                                            \
  do {                                                                             \
    if (!(condition)) throw ::fulcrum::ArgumentError(FULCRUM_FORMAT(__VA_ARGS__)); \
  } while (0)
