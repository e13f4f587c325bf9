// Exit codes: 0 done, 2 wrong use or configuration, 1 everything else.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/exit_code.h"
#include "apps/overrides.h"
#include "framework/config/suggest.h"
#include "framework/core/error.h"

namespace {

// CLI11 would only say that a verb is required.
void check_verb(const CLI::App& app, const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front().starts_with("-")) return;
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::string& given = arguments.front();
  if (std::find(verbs.begin(), verbs.end(), given) != verbs.end()) return;
  throw fulcrum::UserError(given + ": unknown verb" + fulcrum::config::suggestion(given, verbs));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Fulcrum pre-trains sparse language models and finds the best split between experts and "
      "memory",
      "fulcrum");
  app.set_version_flag("--version", FULCRUM_VERSION);
  app.require_subcommand(1);
  // Each verb adds itself here.
  fulcrum::apps::add_plan(app);
  fulcrum::apps::add_prepare(app);
  fulcrum::apps::add_fit(app);
  fulcrum::apps::add_inspect(app);
  fulcrum::apps::add_export(app);
  fulcrum::apps::add_train(app);
  fulcrum::apps::add_sweep(app);
  fulcrum::apps::add_bench(app);
  std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    check_verb(app, arguments);
    arguments = fulcrum::apps::separate_overrides(arguments);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes a vector
    app.parse(std::move(arguments));
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fulcrum: %s\n", error.what());
    return fulcrum::apps::exit_code(error);
  }
}
