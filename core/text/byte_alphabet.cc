#include "core/text/byte_alphabet.h"

#include <array>

#include "core/text/utf8.h"

namespace nibble::text {
namespace {

// The alphabet ends at U+0100 + 67: 68 bytes are not printable.
constexpr int kCodePoints = 0x144;

struct Alphabet {
  std::array<std::string, 256> spelling;
  std::array<int, kCodePoints> byte;  // -1: no byte's character
};

bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

std::string ToUtf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = IsPrintable(byte) ? byte : next++;
    alphabet.spelling[byte] = ToUtf8(code_point);
    alphabet.byte[code_point] = byte;
  }
  return alphabet;
}

const Alphabet& TheAlphabet() {
  static const Alphabet& alphabet = *new Alphabet(MakeAlphabet());
  return alphabet;
}

// The byte of the character that `spelling` starts with, or -1.
int FirstByte(absl::string_view spelling, size_t length) {
  if (length != 1 && length != 2) return -1;
  const int lead = static_cast<uint8_t>(spelling[0]);
  const int code_point = length == 1 ? lead : (lead & 0x1F) << 6 | (spelling[1] & 0x3F);
  return code_point < kCodePoints ? TheAlphabet().byte[code_point] : -1;
}

}  // namespace

absl::string_view ByteSpelling(uint8_t byte) { return TheAlphabet().spelling[byte]; }

std::string SpellBytes(absl::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (char byte : bytes) spelling += TheAlphabet().spelling[static_cast<uint8_t>(byte)];
  return spelling;
}

void AppendSpelledBytes(absl::string_view spelling, std::string* bytes) {
  const size_t start = bytes->size();
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = Utf8CharacterLength(spelling.substr(i));
    const int byte = FirstByte(spelling.substr(i), length);
    if (byte < 0) {
      bytes->resize(start);
      bytes->append(spelling.data(), spelling.size());
      return;
    }
    bytes->push_back(static_cast<char>(byte));
    i += length;
  }
}

}  // namespace nibble::text
