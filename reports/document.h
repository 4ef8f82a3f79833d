// What a report says, apart from how it is written: sections of paragraphs,
// tables, code and pictures. markdown.h and html.h write it, so that neither can
// say what the other does not.
#ifndef NIBBLE_REPORTS_DOCUMENT_H_
#define NIBBLE_REPORTS_DOCUMENT_H_

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble::doc {

// A stretch of text of one kind.
struct Span {
  enum Kind {
    kWords,   // the report's own
    kData,    // from a config, a file or a method: nothing in it is markup
    kCode,    // likewise, set as code
    kBreak,   // a new line
    kMark,    // the number of a note below, in `text`
    kLink,    // to the file `target`, a path from the report's folder
  };
  Kind kind = kWords;
  std::string text;
  bool strong = false;
  std::string target;       // of words and data: the id of the record that they are a figure of, "" for none; Markdown has no records
  std::string detail = "";  // what else that record says, for a reader who points at the figure
};

class Text {
 public:
  Text& Words(absl::string_view words) { return Add({Span::kWords, std::string(words), false, ""}); }
  Text& Data(absl::string_view data) { return Add({Span::kData, std::string(data), false, ""}); }
  Text& Code(absl::string_view code) { return Add({Span::kCode, std::string(code), false, ""}); }
  Text& StrongWords(absl::string_view words) { return Add({Span::kWords, std::string(words), true, ""}); }
  Text& StrongData(absl::string_view data) { return Add({Span::kData, std::string(data), true, ""}); }
  Text& Break() { return Add({Span::kBreak, "", false, ""}); }
  Text& Link(absl::string_view file) { return Link(file, file); }
  Text& Link(absl::string_view name, absl::string_view file) { return Add({Span::kLink, std::string(name), false, std::string(file)}); }
  Text& Record(absl::string_view figure, absl::string_view id, absl::string_view detail = "") {
    return Add({Span::kWords, std::string(figure), false, std::string(id), std::string(detail)});
  }
  Text& RecordData(absl::string_view data, absl::string_view id) { return Add({Span::kData, std::string(data), false, std::string(id)}); }
  // Makes all words and data figures of the record `id`, but for those that are of another.
  Text& LinkToRecord(absl::string_view id);
  Text& Append(const Text& other) {
    spans_.insert(spans_.end(), other.spans_.begin(), other.spans_.end());
    return *this;
  }
  Text& Add(Span span) {
    if (!span.text.empty() || span.kind == Span::kBreak) spans_.push_back(std::move(span));
    return *this;
  }

  const std::vector<Span>& spans() const { return spans_; }
  bool empty() const { return spans_.empty(); }

 private:
  std::vector<Span> spans_;
};

// Texts with `between` among them.
Text JoinTexts(const std::vector<Text>& texts, absl::string_view between);

// Numbered remarks below a table; one that comes again keeps its number.
class Notes {
 public:
  // Marks the end of `text` with the number of `note`.
  void Mark(absl::string_view note, Text* text);
  // Gives `note` a number, though nothing is marked with it.
  void Keep(absl::string_view note) { Number(note); }
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  size_t Number(absl::string_view note);
  std::vector<std::string> texts_;
};

struct Cell {
  Cell() = default;
  Cell(Text t) : text(std::move(t)) {}
  Cell(Text t, std::optional<double> n) : text(std::move(t)), number(n) {}

  Text text;
  std::optional<double> number;  // what the cell sorts by, where it is a number
  std::string id;                // links to the row lead here; of a row's first cell
};
using Row = std::vector<Cell>;

struct Column {
  Text title;
  bool is_number = false;
};
// Columns of text first, those from `numbers_from` on of numbers.
std::vector<Column> Columns(const std::vector<Text>& titles, size_t numbers_from);
std::vector<Column> Columns(const std::vector<std::string>& titles, size_t numbers_from);

struct Paragraph {
  Text text;
};
struct Table {
  std::string caption;  // for those who do not see the section's title beside it
  std::vector<Column> columns;
  std::vector<Row> rows;
  bool is_sortable = true;  // false where figures of one column are of several units
};
struct List {
  std::vector<Text> items;
};
struct NoteList {
  std::vector<std::string> notes;
};
struct Code {
  std::string text;
  std::string language;  // "" for none
};
// Code that a reader opens.
struct Details {
  Text summary;
  Code code;
};
struct Image {
  std::string alt;
  std::string file;  // an SVG beside the report
};
using Block = std::variant<Paragraph, Table, List, NoteList, Code, Details, Image>;

struct Section {
  std::string title;
  std::vector<Block> blocks;
  bool is_printed = true;  // false of what links lead to, which paper has none of
};

// One line of the head: "Model", "a model".
struct Fact {
  std::string name;
  Text text;
};

struct Document {
  std::string title;
  std::vector<Fact> facts;
  std::vector<Fact> dated_facts;  // not for Markdown: it holds no date, so that the same results give the same text
  std::vector<Section> sections;
};

}  // namespace nibble::doc

#endif  // NIBBLE_REPORTS_DOCUMENT_H_
