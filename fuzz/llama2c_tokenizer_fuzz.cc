// llama2.c's tokenizer files. The first byte is the number of tokens beyond the 259 that
// every file has: the file itself does not hold it.

#include "core/text/llama2c_tokenizer.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  if (size == 0) return 0;
  const auto tokenizer = text::TokenizerFromLlama2c({data + 1, size - 1}, 259 + data[0], "tokenizer.bin");
  fuzz::CheckError(tokenizer.status(), "tokenizer.bin", size);
  if (tokenizer.ok()) fuzz::UseTokenizer(**tokenizer, "a  b\xFF <s>\n</s>");
  return 0;
}
