// tokenizer_config.json, a text and tiktoken's tokenizer.model, parted by lines "%%".

#include "core/text/tiktoken.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 3);
  const auto tokenizer = text::TokenizerFromTiktoken(parts[2], parts[0], "tokenizer.model");
  fuzz::CheckError(tokenizer.status(), "tokenizer.model", size);
  if (!tokenizer.ok()) return 0;
  fuzz::UseTokenizer(**tokenizer, parts[1]);
  const auto written = text::ToTiktoken(**tokenizer);
  // Names of special tokens that a config gives may have no place in the file.
  NIBBLE_FUZZ_EXPECT(written.ok() || !parts[0].empty());
  if (!written.ok()) return 0;
  const auto again = text::TokenizerFromTiktoken(*written, parts[0], "again");
  NIBBLE_FUZZ_EXPECT(again.ok());
  NIBBLE_FUZZ_EXPECT((*again)->Encode(parts[1]) == (*tokenizer)->Encode(parts[1]));
  return 0;
}
