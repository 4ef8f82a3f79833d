// llama2.c checkpoints of version 0.

#include "core/io/llama2c.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("model.bin", fuzz::Text(data, size));
  const auto model = io::ReadLlama2c(path);
  fuzz::CheckError(model.status(), path, size);
  if (model.ok()) fuzz::LoadWeights(model->config, model->weights);
  return 0;
}
