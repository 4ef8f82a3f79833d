// tokenizer.json, tokenizer_config.json and a text, parted by lines "%%".

#include "core/text/hf_json.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 3);
  const auto tokenizer = text::TokenizerFromJson(parts[0], parts[1], "tokenizer.json");
  fuzz::CheckError(tokenizer.status(), "tokenizer.json", size);
  if (tokenizer.ok()) fuzz::UseTokenizer(**tokenizer, parts[2]);
  return 0;
}
