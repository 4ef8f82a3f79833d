// tokenizer_config.json, a text and SentencePiece's tokenizer.model, parted by lines "%%".

#include "core/text/sentencepiece_model.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 3);
  const auto tokenizer = text::TokenizerFromSentencePiece(parts[2], parts[0], "tokenizer.model");
  fuzz::CheckError(tokenizer.status(), "tokenizer.model", size);
  if (tokenizer.ok()) fuzz::UseTokenizer(**tokenizer, parts[1]);
  return 0;
}
