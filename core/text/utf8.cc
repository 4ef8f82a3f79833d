#include "core/text/utf8.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace nibble::text {
namespace {

bool IsBetween(char byte, uint8_t low, uint8_t high) {
  const uint8_t value = static_cast<uint8_t>(byte);
  return low <= value && value <= high;
}

bool IsContinuation(char byte) { return IsBetween(byte, 0x80, 0xBF); }

// The second byte's range depends on the first byte.
bool IsSecondByte(uint8_t first, char second) {
  switch (first) {
    case 0xE0: return IsBetween(second, 0xA0, 0xBF);
    case 0xED: return IsBetween(second, 0x80, 0x9F);
    case 0xF0: return IsBetween(second, 0x90, 0xBF);
    case 0xF4: return IsBetween(second, 0x80, 0x8F);
    default: return IsContinuation(second);
  }
}

}  // namespace

size_t Utf8CharacterLength(absl::string_view text) {
  if (text.empty()) return 0;
  const uint8_t first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < length || !IsSecondByte(first, text[1])) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  return length;
}

size_t Utf8PrefixLength(absl::string_view text) {
  size_t size = 0;
  while (size < text.size()) {
    const size_t length = Utf8CharacterLength(text.substr(size));
    if (length == 0) break;
    size += length;
  }
  return size;
}

std::string WellFormed(absl::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = Utf8PrefixLength(text);
    result.append(text.data(), length);
    text.remove_prefix(length);
    if (text.empty()) break;
    result += "\xEF\xBF\xBD";
    text.remove_prefix(1);
  }
  return result;
}

absl::Status CheckUtf8(absl::string_view text, absl::string_view file) {
  const size_t valid = Utf8PrefixLength(text);
  if (valid == text.size()) return absl::OkStatus();
  const auto line = 1 + std::count(text.begin(), text.begin() + valid, '\n');
  return absl::InvalidArgumentError(absl::StrCat(file, ":", line, ": not UTF-8 text: byte ", valid, " of the file starts no character"));
}

}  // namespace nibble::text
