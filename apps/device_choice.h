#pragma once
// Which device a rank computes on.

#include "apps/train/config.h"
#include "framework/core/device.h"

namespace fulcrum::apps {

// auto takes a GPU where this build and this machine have one. Ranks of a host take its GPUs in
// turn; the device chosen becomes the process's. Throws UserError when `cuda` is asked for in vain.
Device choose_device(DeviceChoice choice, int local_rank);

// The kind of device that a run is planned for: as choose_device, but `cuda` needs none here.
Device::Kind planned_device(DeviceChoice choice);

}  // namespace fulcrum::apps
