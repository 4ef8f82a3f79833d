// Meta's folders: params.json and consolidated.00.pth, parted by a line "%%".

#include "core/io/meta_folder.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 2);
  const fuzz::ScratchFolder folder;
  folder.Put("params.json", parts[0]);
  folder.Put("consolidated.00.pth", parts[1]);
  const auto model = io::ReadMetaFolder(folder.path());
  fuzz::CheckError(model.status(), folder.path(), size);
  if (model.ok()) fuzz::LoadWeights(model->config, model->weights, model->attachments);
  return 0;
}
