#include "reports/document.h"

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace nibble::doc {

Text& Text::LinkToRecord(absl::string_view id) {
  for (Span& span : spans_) {
    if ((span.kind == Span::kWords || span.kind == Span::kData) && span.target.empty()) span.target = std::string(id);
  }
  return *this;
}

Text JoinTexts(const std::vector<Text>& texts, absl::string_view between) {
  Text joined;
  for (const Text& text : texts) {
    if (!joined.empty()) joined.Words(between);
    joined.Append(text);
  }
  return joined;
}

size_t Notes::Number(absl::string_view note) {
  const auto place = absl::c_find(texts_, note);
  const size_t number = place - texts_.begin() + 1;
  if (place == texts_.end()) texts_.emplace_back(note);
  return number;
}

void Notes::Mark(absl::string_view note, Text* text) { text->Add({Span::kMark, absl::StrCat(Number(note)), false, ""}); }

std::vector<Column> Columns(const std::vector<Text>& titles, size_t numbers_from) {
  std::vector<Column> columns;
  for (const Text& title : titles) columns.push_back({title, columns.size() >= numbers_from});
  return columns;
}

std::vector<Column> Columns(const std::vector<std::string>& titles, size_t numbers_from) {
  std::vector<Text> texts;
  for (const std::string& title : titles) texts.push_back(Text().Words(title));
  return Columns(texts, numbers_from);
}

}  // namespace nibble::doc
