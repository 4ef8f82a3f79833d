// Raw records of a measurement, and the metrics that follow from them.

#include "eval/raw_records.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const fuzz::ScratchFolder folder;
  const std::string path = folder.Put("records.safetensors", fuzz::Text(data, size));
  const auto records = eval::ReadRawRecords(path);
  fuzz::CheckError(records.status(), path, size);
  if (!records.ok()) return 0;
  fuzz::CheckError(eval::MetricsOf(*records).status(), "", size);
  const auto written = eval::ToFileBytes(*records);
  fuzz::CheckError(written.status(), "", size);
  if (!written.ok()) return 0;
  const auto again = eval::ReadRawRecords(folder.Put("again.safetensors", *written));
  NIBBLE_FUZZ_EXPECT(again.ok());
  NIBBLE_FUZZ_EXPECT(eval::ToFileBytes(*again).value() == *written);
  return 0;
}
