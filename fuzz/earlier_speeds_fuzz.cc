// The file of an earlier `nibble bench --json`, as --compare reads it.

#include "eval/earlier_speeds.h"

#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("bench.json", fuzz::Text(data, size));
  const auto earlier = eval::EarlierSpeeds::Read(path);
  fuzz::CheckError(earlier.status(), path, size);
  if (!earlier.ok()) return 0;
  for (const char* name : {"prefill 64", "decode after 128", ""}) (void)earlier->TokensPerSecond(name);
  const nlohmann::ordered_json settings = {{"model", "m"}, {"threads", 2}, {"cache", ""}};
  NIBBLE_FUZZ_EXPECT(earlier->OtherSettings(settings).size() <= settings.size());
  return 0;
}
