#pragma once
// Encodes documents on several threads and hands them on in their order: a reader, encoders, and
// the caller as the writer.
//
// The texts and ids in flight are bounded, so memory does not depend on the size of the input; the
// result does not depend on the number of threads.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "data/tokenizer.h"

namespace fulcrum::data {

struct EncodePipeline {
  const Tokenizer& tokenizer;
  int threads = 1;  // encoders
  std::int64_t bytes_in_flight = std::int64_t{32}
                                 << 20;  // of text; a single longer document passes alone

  // Calls read(document) from one thread until it gives false, and write(text, ids) from the
  // calling thread for each document in turn. The first exception of any part stops the others and
  // is rethrown.
  void run(const std::function<bool(std::string&)>& read,
           const std::function<void(std::string_view, std::span<const std::int32_t>)>& write) const;
};

}  // namespace fulcrum::data
