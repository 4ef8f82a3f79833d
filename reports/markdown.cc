#include "reports/markdown.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "reports/format.h"

namespace nibble {
namespace {

std::string Superscript(absl::string_view number) {
  static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string mark;
  for (const char digit : number) mark += kDigits[digit - '0'];
  return mark;
}

// In a table's cell a pipe ends the cell, within code too.
std::string Written(const doc::Span& span, bool in_cell) {
  switch (span.kind) {
    case doc::Span::kWords: return span.text;
    case doc::Span::kData: return MarkdownCell(span.text);
    case doc::Span::kCode: return absl::StrCat("`", absl::StrReplaceAll(span.text, {{"`", "'"}, {"|", in_cell ? "\\|" : "|"}}), "`");
    case doc::Span::kBreak: return "<br>";
    case doc::Span::kMark: return Superscript(span.text);
    case doc::Span::kLink: return absl::StrCat("[", span.text, "](", span.target, ")");
  }
  return "";
}

std::string Inline(const doc::Text& text, bool in_cell = false) {
  std::string markdown;
  for (const doc::Span& span : text.spans()) {
    const char* marks = span.strong ? "**" : "";
    absl::StrAppend(&markdown, marks, Written(span, in_cell), marks);
  }
  return markdown;
}

std::string RowText(const std::vector<std::string>& cells) { return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n"); }

std::string Block(const doc::Paragraph& paragraph) { return Inline(paragraph.text) + "\n"; }

std::string Block(const doc::Table& table) {
  std::vector<std::string> titles, rules;
  for (const doc::Column& column : table.columns) {
    titles.push_back(Inline(column.title, /*in_cell=*/true));
    rules.push_back(column.is_number ? "---:" : ":---");
  }
  std::string text = absl::StrCat(RowText(titles), RowText(rules));
  for (const doc::Row& row : table.rows) {
    std::vector<std::string> cells;
    for (const doc::Cell& cell : row) cells.push_back(Inline(cell.text, /*in_cell=*/true));
    absl::StrAppend(&text, RowText(cells));
  }
  return text;
}

std::string Block(const doc::List& list) {
  std::string text;
  for (const doc::Text& item : list.items) absl::StrAppend(&text, "- ", Inline(item), "\n");
  return text;
}

std::string Block(const doc::NoteList& list) {
  std::string text;
  for (size_t i = 0; i < list.notes.size(); ++i) {
    absl::StrAppend(&text, "- ", Superscript(absl::StrCat(i + 1)), " ", MarkdownCell(list.notes[i]), "\n");
  }
  return text;
}

std::string Block(const doc::Code& code) { return CodeBlock(code.text, code.language); }

std::string Block(const doc::Details& details) {
  std::string summary;  // within HTML nothing is Markdown
  for (const doc::Span& span : details.summary.spans()) absl::StrAppend(&summary, EscapeXml(span.text));
  return absl::StrCat("<details><summary>", summary, "</summary>\n\n", Block(details.code), "\n</details>\n");
}

std::string Block(const doc::Image& image) { return absl::StrCat("![", image.alt, "](", image.file, ")\n"); }

// "Model `a`. Machine: a CPU, 2 threads."
std::string FactsText(const std::vector<doc::Fact>& facts) {
  const auto sentence = [](std::string* out, const doc::Fact& fact) { absl::StrAppend(out, fact.name, " ", Inline(fact.text), "."); };
  return absl::StrJoin(facts, " ", sentence);
}

}  // namespace

std::string ToMarkdown(const doc::Document& document) {
  std::string text = absl::StrCat("# ", MarkdownCell(document.title), "\n\n");
  if (!document.facts.empty()) absl::StrAppend(&text, FactsText(document.facts), "\n\n");
  for (const doc::Section& section : document.sections) {
    absl::StrAppend(&text, "## ", MarkdownCell(section.title), "\n\n");
    for (const doc::Block& block : section.blocks) {
      absl::StrAppend(&text, std::visit([](const auto& b) { return Block(b); }, block), "\n");
    }
  }
  // Every block is followed by an empty line, but for the last.
  return std::string(absl::StripSuffix(text, "\n"));
}

}  // namespace nibble
