// Exit codes: 0 done, 2 wrong use or configuration, 1 everything else.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "apps/commands.h"
#include "apps/exit_code.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Fulcrum pre-trains sparse language models and finds the best split between experts and "
      "memory");
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
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fulcrum: %s\n", error.what());
    return fulcrum::apps::exit_code(error);
  }
}
