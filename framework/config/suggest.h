#pragma once
// "did you mean …"

#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::config {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b.
int edit_distance(std::string_view a, std::string_view b);

// The candidate at the smallest distance if that is small against the name's length, else empty.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);

// "; did you mean x" when there is a nearest name, else "; allowed: a, b, c".
std::string suggestion(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace fulcrum::config
