#include <CLI/CLI.hpp>

#include "apps/commands.h"

int main(int argc, char** argv) {
  CLI::App app("Fulcrum pre-trains sparse language models and finds the best split between experts and memory");
  CLI11_PARSE(app, argc, argv);
  return 0;
}
