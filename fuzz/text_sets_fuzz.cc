// Plain text, HellaSwag's six lines an item, CSV, WikiText's pages.

#include "core/text/utf8.h"
#include "datasets/rows.h"
#include "datasets/text.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const std::string path = fuzz::ScratchFolder().Put("items.txt", fuzz::Text(data, size));
  for (const auto format : {TaskDescription::HELLASWAG, TaskDescription::CSV, TaskDescription::WIKITEXT_PAGES}) {
    const auto rows = datasets::ReadRows(path, format);
    fuzz::CheckError(rows.status(), path, size);
    if (rows.ok()) NIBBLE_FUZZ_EXPECT(!rows->empty() && rows->front().columns.is_object());
  }
  const auto text = datasets::ReadText(path);
  fuzz::CheckError(text.status(), path, size);
  NIBBLE_FUZZ_EXPECT(text.ok() == (size > 0 && text::IsUtf8(fuzz::Text(data, size))));
  return 0;
}
