// JSON of model files (no key twice, little nesting) and of everything else.

#include "core/base/json.h"
#include "core/io/strict_json.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const absl::string_view text = fuzz::Text(data, size);
  const auto strict = io::ParseStrictObject(text, "a.json");
  const auto any = ParseJson(text, "a.json");
  fuzz::CheckError(strict.status(), "a.json: ", size);
  fuzz::CheckError(any.status(), "a.json: ", size);
  if (!strict.ok()) return 0;
  NIBBLE_FUZZ_EXPECT(any.ok() && *any == *strict);
  const auto again = io::ParseStrictObject(strict->dump(), "b.json");
  NIBBLE_FUZZ_EXPECT(again.ok());
  return 0;
}
