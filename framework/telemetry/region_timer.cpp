#include "framework/telemetry/region_timer.h"

namespace fulcrum::telemetry {

void RegionTimer::begin() {
  ended_ = false;
  regions_ = {current_region()};
  watch_.mark(0);
  set_region_listener([this](Region region) {
    watch_.mark(regions_.size());
    regions_.push_back(region);
  });
}

void RegionTimer::end() {
  set_region_listener({});
  watch_.mark(regions_.size());
  ended_ = true;
}

RegionTimer::Seconds RegionTimer::seconds() const {
  Seconds seconds{};
  if (!ended_) return seconds;
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    seconds[static_cast<std::size_t>(regions_[i])] += watch_.seconds(i, i + 1);
  }
  return seconds;
}

}  // namespace fulcrum::telemetry
