#pragma once
// Moves collectives on while the program computes. MPI does little between calls into it, and a
// collective of several stages does nothing at all unless somebody polls it.

#include "parallel/request.h"

namespace fulcrum::parallel {

// Polls the request until it is done, from one background thread of the process, which sleeps
// between polls and while there is nothing to follow. The request stays the caller's to test and
// wait for; an error of the collective appears there.
void follow(const Request& request);

}  // namespace fulcrum::parallel
