// The tokenizer file of llama2.c (tokenizer.bin, tok512.bin).
#ifndef NIBBLE_CORE_TEXT_LLAMA2C_TOKENIZER_H_
#define NIBBLE_CORE_TEXT_LLAMA2C_TOKENIZER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

// Reads the longest token's length (int32), then for each of `vocab_size` tokens its
// score (float), length (int32) and bytes, all little-endian. The file does not hold
// the number of tokens; the model does.
//
// Ids 0, 1, 2 are the unknown piece, BOS and EOS, which the file spells with newlines
// around them and which are named "<unk>", "<s>", "</s>" here; then the bytes "<0x00>"
// to "<0xFF>" follow and the normal pieces, with plain spaces. A BOS is added.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromLlama2c(absl::Span<const uint8_t> file, int vocab_size,
                                                                absl::string_view path);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_LLAMA2C_TOKENIZER_H_
