#pragma once
// Whether results must be the same bits from run to run even where that costs speed: on GPUs, the
// backward of attention through cuDNN. Everything else is deterministic always.

namespace fulcrum {

// Process-wide choice, true at first.
void set_deterministic(bool deterministic);
bool deterministic();

}  // namespace fulcrum
