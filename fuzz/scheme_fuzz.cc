// Schemes as checkpoints spell them, and what a valid one does to a small tensor.

#include "core/base/rng.h"
#include "core/io/scheme_text.h"
#include "core/quant/format.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto scheme = io::SchemeFromText(fuzz::Text(data, size));
  fuzz::CheckError(scheme.status(), "", size);
  if (!scheme.ok()) return 0;
  const auto again = io::SchemeFromText(io::SchemeToText(*scheme));
  NIBBLE_FUZZ_EXPECT(again.ok() && SameScheme(*again, *scheme));
  (void)SchemeToString(*scheme);
  const Shape shape = {2, 256};
  Rng rng(1);
  std::vector<float> values(512);
  for (float& value : values) value = rng.Normal();
  (void)EncodedBytes(*scheme, {1 << 24, 1 << 24});
  const auto encoded = Encode(*scheme, shape, values);
  if (!encoded.ok()) return 0;
  NIBBLE_FUZZ_EXPECT(CheckEncoded(*encoded).ok());
  (void)Decode(*encoded);
  return 0;
}
