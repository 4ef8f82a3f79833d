// Folders that other libraries quantized: a safetensors file whose metadata holds the
// quantization_config, as the fixtures in core/io/quantized/testdata do.

#include "core/base/json.h"
#include "core/io/quantized/layout.h"
#include "core/io/safetensors.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("model.safetensors", fuzz::Text(data, size));
  const auto file = io::SafetensorsFile::Open(path);
  if (!file.ok()) return 0;
  const auto text = (*file)->metadata().find("quantization_config");
  const auto config = text == (*file)->metadata().end() ? nlohmann::json() : ParseJson(text->second, path).value_or(nlohmann::json());
  const auto files = std::make_shared<io::TensorFiles>();
  for (const std::string& name : (*file)->names()) files->Add(name, *file);
  const auto layout = io::OpenQuantizedLayout(config, files);
  fuzz::CheckError(layout.status(), "", size);
  if (!layout.ok()) return 0;
  for (const auto& [module, scheme] : layout->activations) NIBBLE_FUZZ_EXPECT(ValidateScheme(scheme).ok());
  for (const auto& [module, load] : layout->weights) {
    const auto weight = load();
    fuzz::CheckError(weight.status(), "", size);
    if (!weight.ok()) continue;
    NIBBLE_FUZZ_EXPECT(CheckEncoded(*weight).ok());
    (void)Decode(*weight);
  }
  return 0;
}
