// The alphabet in which byte-level BPE vocabularies are written: one printable
// character for each of the 256 bytes. A printable byte of Latin-1 stands for
// itself; the others take U+0100, U+0101, ... in the order of their values, so
// that a space is U+0120 and a newline U+010A.
#ifndef NIBBLE_CORE_TEXT_BYTE_ALPHABET_H_
#define NIBBLE_CORE_TEXT_BYTE_ALPHABET_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble::text {

// The character for one byte, as UTF-8.
absl::string_view ByteSpelling(uint8_t byte);

// `bytes` written in the alphabet.
std::string SpellBytes(absl::string_view bytes);

// Appends the bytes that `spelling` stands for. A spelling with a character that
// is not in the alphabet stands for itself.
void AppendSpelledBytes(absl::string_view spelling, std::string* bytes);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_BYTE_ALPHABET_H_
