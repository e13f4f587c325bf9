#include "framework/core/region.h"

#include <utility>

#include "framework/core/nvtx.h"

namespace fulcrum {
namespace {

thread_local Region region_now = Region::other;
thread_local std::function<void(Region)> region_listener;

void enter(Region region) {
  if (region == region_now) return;
  region_now = region;
  if (region_listener) region_listener(region);
}

}  // namespace

const char* name_of(Region region) {
  switch (region) {
    case Region::other:
      return "other";
    case Region::attention:
      return "attention";
    case Region::feed_forward:
      return "feed_forward";
    case Region::experts:
      return "experts";
    case Region::memory:
      return "memory";
    case Region::vocabulary:
      return "vocabulary";
    case Region::communication:
      return "communication";
    case Region::optimizer:
      return "optimizer";
  }
  return "?";
}

Region current_region() { return region_now; }

InRegion::InRegion(Region region) : previous_(region_now) {
  nvtx_push(name_of(region));
  enter(region);
}

InRegion::~InRegion() {
  enter(previous_);
  nvtx_pop();
}

void InRegion::move_to(Region region) {
  if (region == region_now) return;
  nvtx_pop();
  nvtx_push(name_of(region));
  enter(region);
}

void set_region_listener(std::function<void(Region)> listener) {
  region_listener = std::move(listener);
}

}  // namespace fulcrum
