// What a model's files say of its tokenizer beside the vocabulary: a GGUF file, or
// tokenizer_config.json and chat_template.jinja, parted by a line "%%".

#include "core/io/tokenizer_extras.h"

#include "absl/strings/match.h"
#include "core/base/json.h"
#include "core/text/bpe.h"
#include "core/text/testing/tiny_vocabulary.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  static const text::Tokenizer& tokenizer = *text::MakeBpe(text::TinyBpe({{"a", "b"}})).value().release();
  const absl::string_view input = fuzz::Text(data, size);
  const fuzz::ScratchFolder folder;
  std::string file;
  if (absl::StartsWith(input, "GGUF")) {
    file = folder.Put("model.gguf", input);
  } else {
    const auto parts = fuzz::Parts(input, 2);
    file = folder.Put("tokenizer_config.json", parts[0]);
    if (!parts[1].empty()) folder.Put("chat_template.jinja", parts[1]);
  }
  const auto extras = io::ReadTokenizerExtras({file}, &tokenizer);
  fuzz::CheckError(extras.status(), folder.path(), size);
  if (!extras.ok()) return 0;
  for (const auto& [name, id] : extras->ids) NIBBLE_FUZZ_EXPECT(id >= 0);
  const std::string written = io::TokenizerConfigJson(tokenizer, *extras);
  NIBBLE_FUZZ_EXPECT(ParseJson(written, "written").ok());
  const fuzz::ScratchFolder second;
  const auto again = io::ReadTokenizerExtras({second.Put("tokenizer_config.json", written)}, &tokenizer);
  NIBBLE_FUZZ_EXPECT(again.ok() && again->add_eos == extras->add_eos && again->chat_template.empty() == extras->chat_template.empty());
  return 0;
}
