// PyTorch checkpoints: the zip around the pickle and the storages.

#include "core/io/torch_file.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("consolidated.00.pth", fuzz::Text(data, size));
  const auto file = io::TorchFile::Open(path);
  fuzz::CheckError(file.status(), path, size);
  if (!file.ok()) return 0;
  for (const std::string& name : (*file)->names()) {
    const auto tensor = (*file)->Get(name);
    NIBBLE_FUZZ_EXPECT(tensor.ok() && tensor->byte_size() <= static_cast<int64_t>(size));
    if (IsFloating(tensor->dtype())) (void)ToFloats(*tensor);
  }
  return 0;
}
