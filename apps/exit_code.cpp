#include "apps/exit_code.h"

#include "framework/core/error.h"

namespace fulcrum::apps {

int exit_code(const std::exception& error) {
  if (dynamic_cast<const IoError*>(&error) != nullptr) return 1;
  return dynamic_cast<const UserError*>(&error) != nullptr ? 2 : 1;
}

void run_job(const std::function<void(parallel::Session&)>& verb) {
  parallel::Session session;
  try {
    verb(session);
  } catch (const std::exception& error) {
    if (session.size() == 1) throw;
    parallel::abort_job(exit_code(error), error.what());
  }
}

}  // namespace fulcrum::apps
