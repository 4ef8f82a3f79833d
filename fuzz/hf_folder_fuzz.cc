// Hugging Face folders and Nibble's checkpoints: config.json, nibble.json, the index of
// shards, a safetensors file and quantize_config.json, parted by lines "%%". With an index
// the safetensors file is its first shard.

#include "core/io/hf_folder.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 5);
  const fuzz::ScratchFolder folder;
  folder.Put("config.json", parts[0]);
  if (!parts[1].empty()) folder.Put("nibble.json", parts[1]);
  if (!parts[2].empty()) folder.Put("model.safetensors.index.json", parts[2]);
  folder.Put(parts[2].empty() ? "model.safetensors" : "model-00001-of-00002.safetensors", parts[3]);
  if (!parts[4].empty()) folder.Put("quantize_config.json", parts[4]);
  const auto model = io::ReadHfFolder(folder.path());
  fuzz::CheckError(model.status(), folder.path(), size);
  if (model.ok()) fuzz::LoadWeights(model->config, model->weights, model->attachments);
  return 0;
}
