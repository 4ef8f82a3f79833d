// results.json of an earlier run, which gates are held against.

#include "fuzz/input.h"
#include "reports/records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("results.json", fuzz::Text(data, size));
  fuzz::CheckError(ReadEarlierResults(path, "results.json").status(), path, size);
  return 0;
}
