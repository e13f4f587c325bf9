#pragma once
// Exit codes of every verb: 0 done, 2 wrong use or configuration, 1 everything else.

#include <exception>
#include <functional>

#include "parallel/session.h"

namespace fulcrum::apps {

int exit_code(const std::exception& error);

// Runs a verb that every rank of a job takes part in. An exception on one of several ranks takes
// the job down with one message and its exit code; alone it is thrown on.
void run_job(const std::function<void(parallel::Session&)>& verb);

}  // namespace fulcrum::apps
