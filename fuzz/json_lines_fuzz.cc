// JSON Lines: multiple choice, conversations, preferences.

#include "datasets/conversations.h"
#include "datasets/multiple_choice.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("items.jsonl", fuzz::Text(data, size));
  const auto items = datasets::ReadMultipleChoice(path);
  fuzz::CheckError(items.status(), path, size);
  if (items.ok()) {
    for (const auto& item : *items) NIBBLE_FUZZ_EXPECT(item.gold >= 0 && item.gold < static_cast<int>(item.choices.size()));
  }
  fuzz::CheckError(datasets::ReadConversations(path).status(), path, size);
  fuzz::CheckError(datasets::ReadPreferences(path).status(), path, size);
  return 0;
}
