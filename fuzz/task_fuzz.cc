// The description of a task and its file of rows, parted by a line "%%".

#include <algorithm>

#include "datasets/task.h"
#include "experiments/text_config.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 2);
  const fuzz::ScratchFolder folder;
  const std::string path = folder.Put("task.textproto", parts[0]), rows = folder.Put("rows", parts[1]);
  datasets::ResolvedTask resolved;
  const absl::Status read = ReadTextFile(path, &resolved.description);
  fuzz::CheckError(read, path, size);
  if (!read.ok()) return 0;
  fuzz::CheckError(datasets::CheckDescription(resolved.description), "", size);
  for (int i = 0; i < resolved.description.part_size(); ++i) resolved.parts.push_back({rows, i % 2 == 0 ? "" : rows});
  const auto task = datasets::ReadTask(resolved, {.shots = -1, .limit = 8});
  fuzz::CheckError(task.status(), "", size);
  if (!task.ok()) return 0;
  for (const datasets::TaskItem& item : task->items) {
    NIBBLE_FUZZ_EXPECT(item.preamble < task->preambles.size());
    NIBBLE_FUZZ_EXPECT(item.contexts.size() == 1 || item.contexts.size() == item.continuations.size());
    NIBBLE_FUZZ_EXPECT(item.gold >= 0 && item.gold < static_cast<int>(std::max<size_t>(1, item.continuations.size())));
  }
  return 0;
}
