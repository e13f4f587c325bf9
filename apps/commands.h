#pragma once
// The subcommands of `fulcrum`: each adds itself to the command line and runs when chosen.

#include <CLI/CLI.hpp>

namespace fulcrum::apps {

}  // namespace fulcrum::apps
