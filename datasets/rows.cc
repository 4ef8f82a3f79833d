#include "datasets/rows.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/base/status.h"
#include "datasets/json_lines.h"
#include "datasets/text.h"
#include "datasets/whitespace.h"

namespace nibble::datasets {
namespace {

constexpr size_t kHellaSwagLines = 6;

absl::StatusOr<TaskDescription::Format> FormatOf(const std::string& path, TaskDescription::Format format) {
  if (format != TaskDescription::AUTO) return format;
  if (absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".json")) return TaskDescription::JSON_LINES;
  if (absl::EndsWith(path, ".csv")) return TaskDescription::CSV;
  if (absl::EndsWith(path, ".txt")) return TaskDescription::HELLASWAG;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": items are read from .jsonl, .csv with a header, or .txt in HellaSwag's six lines; a task's description may say its format"));
}

absl::StatusOr<std::vector<Row>> ReadJsonLines(const std::string& path) {
  std::vector<Row> rows;
  NIBBLE_RETURN_IF_ERROR(ForJsonLines(path, [&](const nlohmann::json& object, const std::string& place) {
    rows.push_back({object, place});
    return absl::OkStatus();
  }));
  return rows;
}

// Reads the records of a CSV text one by one.
class CsvReader {
 public:
  CsvReader(const std::string& path, absl::string_view text) : path_(path), rest_(text) {}

  bool done() const { return rest_.empty(); }
  size_t line() const { return line_; }  // of the next record, from 0

  // The fields of the next record; none for a blank line.
  absl::StatusOr<std::vector<std::string>> Next() {
    std::vector<std::string> fields;
    if (SkipLineEnd()) return fields;
    const std::string place = Place(path_, line_);
    do {
      NIBBLE_ASSIGN_OR_RETURN(std::string field, Field(place));
      fields.push_back(std::move(field));
    } while (Skip(","));
    if (!rest_.empty() && !SkipLineEnd()) return absl::InvalidArgumentError(absl::StrCat(place, ": text after a field's closing quote"));
    return fields;
  }

 private:
  bool Skip(absl::string_view text) {
    if (!absl::StartsWith(rest_, text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  bool SkipLineEnd() {
    if (!Skip("\n") && !Skip("\r\n")) return false;
    ++line_;
    return true;
  }

  absl::StatusOr<std::string> Field(const std::string& place) {
    if (!Skip("\"")) {
      size_t end = std::min(rest_.find_first_of(",\n"), rest_.size());
      if (end > 0 && end < rest_.size() && rest_[end] == '\n' && rest_[end - 1] == '\r') --end;
      const std::string field(rest_.substr(0, end));
      rest_.remove_prefix(end);
      return field;
    }
    std::string field;
    while (true) {
      const size_t quote = rest_.find('"');
      if (quote == absl::string_view::npos) return absl::InvalidArgumentError(absl::StrCat(place, ": a quote is not closed"));
      field.append(rest_.data(), quote);
      line_ += std::count(rest_.begin(), rest_.begin() + quote, '\n');
      rest_.remove_prefix(quote + 1);
      if (!Skip("\"")) return field;
      field.push_back('"');
    }
  }

  const std::string& path_;
  absl::string_view rest_;
  size_t line_ = 0;
};

absl::Status CheckHeader(const std::vector<std::string>& header, const std::string& place) {
  for (size_t i = 0; i < header.size(); ++i) {
    if (header[i].empty()) return absl::InvalidArgumentError(absl::StrCat(place, ": column ", i + 1, " of the header has no name"));
    if (std::find(header.begin(), header.begin() + i, header[i]) != header.begin() + i) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": two columns of the header are called '", header[i], "'"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Row>> ReadCsv(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadUtf8(path));
  CsvReader reader(path, text);
  std::vector<std::string> header;
  std::vector<Row> rows;
  while (!reader.done()) {
    const std::string place = Place(path, reader.line());
    NIBBLE_ASSIGN_OR_RETURN(std::vector<std::string> fields, reader.Next());
    if (fields.empty()) continue;
    if (header.empty()) {
      NIBBLE_RETURN_IF_ERROR(CheckHeader(fields, place));
      header = std::move(fields);
      continue;
    }
    if (fields.size() != header.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": ", fields.size(), " fields; the header has ", header.size(), " (", absl::StrJoin(header, ", "), ")"));
    }
    Row& row = rows.emplace_back(Row{nlohmann::json::object(), place});
    for (size_t i = 0; i < header.size(); ++i) row.columns[header[i]] = std::move(fields[i]);
  }
  return rows;
}

absl::StatusOr<std::vector<Row>> ReadHellaSwag(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadUtf8(path));
  const std::vector<absl::string_view> lines = Lines(text);
  if (lines.size() % kHellaSwagLines != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", lines.size(), " lines, not a multiple of ", kHellaSwagLines,
                                                   " (context, gold index, four endings)"));
  }
  std::vector<Row> rows;
  for (size_t first = 0; first < lines.size(); first += kHellaSwagLines) {
    int gold = 0;
    if (!absl::SimpleAtoi(lines[first + 1], &gold)) {
      return FieldError(Place(path, first + 1), "gold", absl::StrCat("must be an index, not '", lines[first + 1], "'"));
    }
    Row& row = rows.emplace_back(Row{{{"query", std::string(lines[first])}, {"gold", gold}}, Place(path, first)});
    for (size_t line = first + 2; line < first + kHellaSwagLines; ++line) {
      if (lines[line].empty()) return absl::InvalidArgumentError(absl::StrCat(Place(path, line), ": an empty ending"));
      row.columns["choices"].push_back(std::string(lines[line]));
    }
  }
  return rows;
}

// A heading of the first level, and not of a deeper one.
bool StartsPage(absl::string_view line) {
  const std::string deeper = absl::StrReplaceAll(absl::StrReplaceAll(line, {{"= = =", "==="}}), {{"= =", "=="}});
  const absl::string_view heading = StripWhitespace(deeper);
  return absl::StartsWith(heading, "= ") && absl::EndsWith(heading, " =");
}

absl::StatusOr<std::vector<Row>> ReadWikitextPages(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadUtf8(path));
  std::vector<Row> rows;
  absl::string_view page(text.data(), 0);
  size_t page_line = 0;
  const auto end_page = [&] {
    if (!StripWhitespace(page).empty()) rows.push_back({{{"page", std::string(page)}}, Place(path, page_line)});
  };
  size_t line_number = 0;
  for (absl::string_view rest = text; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (StartsPage(rest.substr(0, end))) {
      // Without the line break before the heading.
      if (!page.empty()) page.remove_suffix(1);
      end_page();
      page = absl::string_view(rest.data(), 0);
      page_line = line_number;
    }
    const size_t length = std::min(end + 1, rest.size());
    page = absl::string_view(page.data(), page.size() + length);
    rest.remove_prefix(length);
  }
  end_page();
  return rows;
}

}  // namespace

absl::StatusOr<std::vector<Row>> ReadRows(const std::string& path, TaskDescription::Format format) {
  NIBBLE_ASSIGN_OR_RETURN(const TaskDescription::Format known, FormatOf(path, format));
  absl::StatusOr<std::vector<Row>> rows = known == TaskDescription::JSON_LINES     ? ReadJsonLines(path)
                                          : known == TaskDescription::CSV          ? ReadCsv(path)
                                          : known == TaskDescription::HELLASWAG    ? ReadHellaSwag(path)
                                                                                   : ReadWikitextPages(path);
  if (rows.ok() && rows->empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no items"));
  return rows;
}

}  // namespace nibble::datasets
