#pragma once
// FULCRUM_MPI(call): throws InternalError with the call's text and MPI's message when it fails.
// Communicators return errors instead of aborting (MPI_ERRORS_RETURN, set by Session and
// Communicator), so this is where they surface.

#include <mpi.h>

#include <string>

#include "framework/core/error.h"

namespace fulcrum::parallel {

inline std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "error " + std::to_string(code);
  return std::string(text, static_cast<std::size_t>(length));
}

}  // namespace fulcrum::parallel

#define FULCRUM_MPI(call)                                                    \
  do {                                                                       \
    if (const int code_ = (call); code_ != MPI_SUCCESS)                      \
      ::fulcrum::throw_internal(#call, __FILE__, __LINE__,                   \
                                ::fulcrum::parallel::mpi_error_text(code_)); \
  } while (0)
