// Reads a GGUF file's tokenizer for tests, and nothing else of it.
#ifndef NIBBLE_CORE_TEXT_TESTING_GGUF_VOCABULARY_H_
#define NIBBLE_CORE_TEXT_TESTING_GGUF_VOCABULARY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"

namespace nibble::text {

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGgufForTest(const std::string& path);

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_TESTING_GGUF_VOCABULARY_H_
