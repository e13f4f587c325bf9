#include "framework/core/determinism.h"

#include <atomic>

namespace fulcrum {
namespace {
std::atomic<bool> chosen = true;
}  // namespace

void set_deterministic(bool deterministic) { chosen = deterministic; }
bool deterministic() { return chosen; }

}  // namespace fulcrum
