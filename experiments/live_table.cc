#include "experiments/live_table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

constexpr size_t kCell = 14, kMostName = 32;

// Characters of a UTF-8 text.
size_t Width(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// The text's first `width` characters.
absl::string_view Cut(absl::string_view text, size_t width) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if ((text[at] & 0xC0) != 0x80 && width-- == 0) break;
  }
  return text.substr(0, at);
}

std::string Left(absl::string_view text, size_t width) {
  const absl::string_view cut = Cut(text, width);
  return absl::StrCat(cut, std::string(width - Width(cut), ' '));
}

std::string Right(absl::string_view text, size_t width) {
  const absl::string_view cut = Cut(text, width);
  return absl::StrCat(std::string(width - Width(cut), ' '), cut);
}

}  // namespace

LiveTable::LiveTable(std::vector<std::string> rows, std::vector<std::string> columns)
    : rows_(std::move(rows)), columns_(std::move(columns)), cells_(rows_.size(), std::vector<std::string>(columns_.size())) {}

size_t LiveTable::NameWidth() const {
  size_t width = 12;
  for (const std::string& row : rows_) width = std::max(width, Width(row));
  return std::min(width, kMostName);
}

std::string LiveTable::Line(absl::string_view name, const std::vector<std::string>& cells, size_t columns) const {
  std::string line = Left(name, NameWidth());
  for (size_t c = 0; c < columns; ++c) absl::StrAppend(&line, " ", Right(cells[c], kCell));
  return line;
}

std::vector<std::string> LiveTable::Lines(Size size) const {
  const size_t room = static_cast<size_t>(std::max(0, size.width - 1 - static_cast<int>(NameWidth()))) / (kCell + 1);
  const size_t columns = std::min(columns_.size(), room);
  // "accuracy/hellaswag" takes two lines of the heading.
  std::vector<std::string> kinds, sets;
  for (const std::string& column : columns_) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(column, absl::MaxSplits('/', 1));
    kinds.push_back(parts.first);
    sets.push_back(parts.second);
  }
  const std::string more = columns < columns_.size() ? absl::StrCat("+", columns_.size() - columns, " metrics") : "";
  std::vector<std::string> lines = {Line(more, kinds, columns), Line("", sets, columns)};
  const size_t height = static_cast<size_t>(std::max(1, size.height - 6));
  const size_t count = std::min(rows_.size(), height);
  const size_t first = std::min(rows_.size() - count, current_ - std::min(current_, count / 2));
  for (size_t r = first; r < first + count; ++r) lines.push_back(Line(rows_[r], cells_[r], columns));
  if (count < rows_.size()) lines.push_back(absl::StrCat("variants ", first + 1, " to ", first + count, " of ", rows_.size()));
  for (const std::string& text : footer_) {
    if (!text.empty()) lines.push_back(text);
  }
  for (std::string& line : lines) line = std::string(Cut(line, static_cast<size_t>(std::max(1, size.width - 1))));
  return lines;
}

void LiveTable::Draw(std::FILE* terminal, Size size, absl::string_view above) {
  const std::vector<std::string> lines = Lines(size);
  std::string text = drawn_ > 0 ? absl::StrCat("\033[", drawn_, "A\r\033[J") : "";
  if (!above.empty()) absl::StrAppend(&text, above, "\n");
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  drawn_ = static_cast<int>(lines.size());
  std::fwrite(text.data(), 1, text.size(), terminal);
  std::fflush(terminal);
}

LiveTable::Size TerminalSize() {
  struct winsize window = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0) return {};
  return {window.ws_col, window.ws_row};
}

}  // namespace nibble
