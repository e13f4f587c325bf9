#include "framework/core/nvtx.h"

#include <nvtx3/nvToolsExt.h>

namespace fulcrum {

void nvtx_push(const char* name) { nvtxRangePushA(name); }
void nvtx_pop() { nvtxRangePop(); }

}  // namespace fulcrum
