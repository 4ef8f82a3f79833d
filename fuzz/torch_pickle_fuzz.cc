// The pickle of a PyTorch checkpoint.

#include "core/io/torch_file.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto tensors = io::ReadTorchPickle({data, size});
  fuzz::CheckError(tensors.status(), "pickle, byte ", size);
  return 0;
}
