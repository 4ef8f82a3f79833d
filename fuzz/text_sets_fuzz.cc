// Plain text, and HellaSwag's six lines an item.

#include "core/text/utf8.h"
#include "datasets/multiple_choice.h"
#include "datasets/text.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("items.txt", fuzz::Text(data, size));
  const auto items = datasets::ReadMultipleChoice(path);
  fuzz::CheckError(items.status(), path, size);
  if (items.ok()) {
    for (const auto& item : *items) NIBBLE_FUZZ_EXPECT(item.gold >= 0 && item.gold < 4 && item.choices.size() == 4);
  }
  const auto text = datasets::ReadText(path);
  fuzz::CheckError(text.status(), path, size);
  NIBBLE_FUZZ_EXPECT(text.ok() == (size > 0 && text::IsUtf8(fuzz::Text(data, size))));
  return 0;
}
