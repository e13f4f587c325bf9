#pragma once
// A protocol-buffer message in wire format (protobuf.dev/programming-guides/encoding), built field
// by field.
//
// The Protobuf library is not used on purpose: distributions build libsentencepiece with a copy of
// another Protobuf version whose symbols it exports, and a process that loads both calls into the
// wrong one and aborts.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace fulcrum::telemetry {

class WireMessage {
 public:
  const std::string& bytes() const { return bytes_; }

  void add_integer(int field, std::uint64_t value) {
    tag(field, 0);
    varint(value);
  }
  void add_double(int field, double value) {
    tag(field, 1);
    append(value);
  }
  // Strings and messages.
  void add_bytes(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_ += value;
  }
  void add_float(int field, float value) {
    tag(field, 5);
    append(value);
  }

 private:
  void tag(int field, int type) { varint(static_cast<std::uint64_t>(field) << 3 | type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  template <class T>
  void append(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  std::string bytes_;
};

}  // namespace fulcrum::telemetry
