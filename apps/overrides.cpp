#include "apps/overrides.h"

#include <algorithm>
#include <cctype>

namespace fulcrum::apps {
namespace {

constexpr const char* kOption = "--set";

bool is_assignment(const std::string& word) {
  const auto equals = word.find('=');
  if (equals == std::string::npos || equals == 0) return false;
  return std::all_of(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(equals),
                     [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '.'; });
}

}  // namespace

CLI::Option* add_overrides(CLI::App& verb, std::vector<std::string>& overrides) {
  return verb
      .add_option(kOption, overrides,
                  "override keys of the experiment: --set train.steps=100 train.seed=3; the last "
                  "value of a key counts")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

std::vector<std::string> separate_overrides(const std::vector<std::string>& arguments) {
  std::vector<std::string> separate;
  bool value_due = false;  // the last word is --set
  bool belongs = false;    // the last word is a value of --set
  for (const std::string& word : arguments) {
    if (value_due) {
      value_due = false;
      belongs = true;
    } else if (word == kOption) {
      value_due = true;
    } else if (word.starts_with("--set=")) {
      belongs = true;
    } else if (belongs && is_assignment(word)) {
      separate.emplace_back(kOption);
    } else {
      belongs = false;
    }
    separate.push_back(word);
  }
  return separate;
}

}  // namespace fulcrum::apps
