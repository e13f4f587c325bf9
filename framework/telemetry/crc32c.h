#pragma once
// CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected), the check of TFRecord files.

#include <cstdint>
#include <string_view>

namespace fulcrum::telemetry {

std::uint32_t crc32c(std::string_view bytes);

// TFRecord stores ((crc >> 15) | (crc << 17)) + 0xa282ead8, so that a checksum of data that holds
// checksums stays useful.
std::uint32_t masked_crc32c(std::string_view bytes);

}  // namespace fulcrum::telemetry
