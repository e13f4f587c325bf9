#pragma once
// The subcommands of `fulcrum`. Each lives in a file of its own, adds itself to the command line
// with its options and an example, and does its work in the callback. Errors are exceptions; main
// turns them into messages and exit codes.

#include <CLI/CLI.hpp>

namespace fulcrum::apps {

void add_prepare(CLI::App& app);
void add_train(CLI::App& app);
void add_sweep(CLI::App& app);
void add_fit(CLI::App& app);
void add_plan(CLI::App& app);
void add_inspect(CLI::App& app);
void add_export(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace fulcrum::apps
