#pragma once
// SIGINT, SIGTERM and SIGUSR1 ask for an orderly end: the run stops at the next step boundary with
// a checkpoint. A second signal ends the process at once.

namespace fulcrum::apps {

// Installs the handlers for its lifetime and restores the previous ones afterwards.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  // The signal that arrived at this process, or 0.
  int received() const;
};

}  // namespace fulcrum::apps
