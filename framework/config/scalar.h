#pragma once
// The scalars of YAML 1.2 (core schema): true/false, 12, 0x1f, 0o17, 1.5, 1e-3, .inf. Nothing else
// is a number: 1_000, 5k and "3" in quotes are text.

#include <string>

#include "framework/config/value.h"

namespace fulcrum::config {

// T: bool, int, int64_t, uint64_t, double, std::string. False when the value is no such scalar or
// does not fit T.
template <class T>
bool parse_scalar(const Value& value, T& out);

template <class T>
Value format_scalar(const T& value);  // doubles: the shortest text that reads back the same

template <class T>
std::string type_name();  // "an integer"

// "; write 1000" for a whole number written as 1e3, "; write true" for yes, else empty.
template <class T>
std::string hint(const Value& value);

}  // namespace fulcrum::config
