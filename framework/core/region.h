#pragma once
// Which part of the model the work at hand belongs to: for the step timer
// (telemetry/region_timer.h) and, as NVTX ranges, for profilers.
//
//   const InRegion region(Region::attention);   // until the end of the scope
//
// The tape remembers the region of every operator, so that its backward counts there too.

#include <cstdint>
#include <functional>

namespace fulcrum {

enum class Region : std::uint8_t {
  other,  // embedding, norms and residuals between the parts
  attention,
  feed_forward,   // dense
  experts,        // router, exchange and experts of a mixture
  memory,         // n-gram memory
  vocabulary,     // head and loss
  communication,  // waiting for other ranks
  optimizer,
};
inline constexpr int kRegions = 8;

const char* name_of(Region region);

Region current_region();

class InRegion {
 public:
  explicit InRegion(Region region);
  ~InRegion();
  // From one region straight to another.
  void move_to(Region region);
  InRegion(const InRegion&) = delete;
  InRegion& operator=(const InRegion&) = delete;

 private:
  Region previous_;
};

// Hears of every change of this thread's region; empty: nobody does.
void set_region_listener(std::function<void(Region)> listener);

}  // namespace fulcrum
