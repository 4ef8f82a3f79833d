// JSON Lines: a task's rows, conversations, preferences.

#include "datasets/conversations.h"
#include "datasets/rows.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("items.jsonl", fuzz::Text(data, size));
  const auto rows = datasets::ReadRows(path, TaskDescription::JSON_LINES);
  fuzz::CheckError(rows.status(), path, size);
  if (rows.ok()) NIBBLE_FUZZ_EXPECT(!rows->empty() && rows->front().columns.is_object());
  fuzz::CheckError(datasets::ReadConversations(path).status(), path, size);
  fuzz::CheckError(datasets::ReadPreferences(path).status(), path, size);
  return 0;
}
