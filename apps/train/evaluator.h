#pragma once
// Loss on the validation split.

#include <cstdint>

#include "data/sampler.h"
#include "models/language_model.h"
#include "parallel/mesh.h"

namespace fulcrum::apps {

struct Evaluation {
  double loss = 0.0;        // mean negative log-likelihood of a token, nats
  std::int64_t tokens = 0;  // over which
};

// Walks the first `windows` windows of the split in order (all of them when 0), micro_batch on each
// data rank at once. Every rank calls it and gets the same result; the windows and the result do
// not depend on the mesh.
Evaluation evaluate(models::LanguageModel& model, const data::Windows& windows, std::int64_t count,
                    std::int64_t micro_batch, const parallel::Mesh& mesh);

}  // namespace fulcrum::apps
