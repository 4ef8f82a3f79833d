// GGUF files: header and metadata, the model's configuration, its weights, its tokenizer.

#include "core/io/gguf.h"

#include "core/io/gguf_model.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("model.gguf", fuzz::Text(data, size));
  const auto file = io::GgufFile::Open(path);
  fuzz::CheckError(file.status(), path, size);
  if (!file.ok()) return 0;
  for (const auto& [name, tensor] : (*file)->tensors()) NIBBLE_FUZZ_EXPECT((*file)->Bytes(tensor).size() == tensor.bytes);
  const auto tokenizer = io::GgufTokenizer(**file);
  fuzz::CheckError(tokenizer.status(), path, size);
  if (tokenizer.ok() && *tokenizer != nullptr) fuzz::UseTokenizer(**tokenizer, "a  b\xFF caf\xC3\xA9 <s>12");
  const auto config = io::GgufConfig(**file);
  fuzz::CheckError(config.status(), path, size);
  if (config.ok()) fuzz::LoadWeights(*config, io::GgufWeights(*file, *config));
  return 0;
}
