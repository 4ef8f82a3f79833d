// safetensors files: the header, and every tensor in it.

#include "core/io/safetensors.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("model.safetensors", fuzz::Text(data, size));
  const auto file = io::SafetensorsFile::Open(path);
  fuzz::CheckError(file.status(), path, size);
  if (!file.ok()) return 0;
  NIBBLE_FUZZ_EXPECT(!(*file)->Get("no such tensor").ok() || (*file)->Has("no such tensor"));
  for (const std::string& name : (*file)->names()) {
    const auto tensor = (*file)->Get(name);
    fuzz::CheckError(tensor.status(), path, size);
    (void)(*file)->GetBytes(name, "F8_E4M3");
    if (!tensor.ok()) continue;
    NIBBLE_FUZZ_EXPECT(tensor->byte_size() <= static_cast<int64_t>(size));
    if (IsFloating(tensor->dtype())) (void)ToFloats(io::Aligned(*tensor));
  }
  return 0;
}
