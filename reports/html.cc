#include "reports/html.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "reports/assets.h"
#include "reports/format.h"

namespace nibble {
namespace {

// What may be read but not loaded stays possible: links are no loads.
constexpr char kPolicy[] =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

// The sections' titles as ids, each its own.
std::vector<std::string> SectionIds(const doc::Document& document) {
  std::vector<std::string> ids;
  for (const doc::Section& section : document.sections) {
    std::string& id = ids.emplace_back();
    for (const char c : section.title) id += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '-';
    if (std::count(ids.begin(), ids.end(), id) > 1) absl::StrAppend(&id, "--", ids.size());
  }
  return ids;
}

std::string NoteId(const std::string& section, absl::string_view number) { return absl::StrCat(section, "-note-", number); }

// A path as a relative URL: what has a meaning of its own in one, such as ':' and '#', as its code.
std::string UrlOf(absl::string_view path) {
  std::string url;
  for (const char c : path) {
    if (absl::ascii_isalnum(c) || absl::StrContains("-._~/", c)) {
      url += c;
    } else {
      absl::StrAppendFormat(&url, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return url;
}

std::vector<size_t> Numbers(size_t from, size_t to) {
  std::vector<size_t> numbers(to - from);
  std::iota(numbers.begin(), numbers.end(), from);
  return numbers;
}

// A screen scrolls, paper does not: a table of many columns is printed as
// several, each with the first column.
constexpr size_t kColumnsOnPaper = 9;  // of the longest figures, on a landscape page of A4 or Letter

// The columns of each piece; a last one with few columns would look like a remnant, so all are about as wide.
std::vector<std::vector<size_t>> PiecesOnPaper(size_t columns) {
  if (columns <= kColumnsOnPaper) return {Numbers(0, columns)};
  const size_t others = columns - 1, pieces = (others + kColumnsOnPaper - 2) / (kColumnsOnPaper - 1);
  std::vector<std::vector<size_t>> parts;
  for (size_t i = 0; i < pieces; ++i) {
    parts.push_back(Numbers(1 + others * i / pieces, 1 + others * (i + 1) / pieces));
    parts.back().insert(parts.back().begin(), 0);
  }
  return parts;
}

// Writes the blocks of one section.
class SectionWriter {
 public:
  // `section`: its id. `images`: by file name, null where charts stand in their place.
  SectionWriter(const std::string& section, bool is_printed, const std::map<std::string, std::string>* images)
      : section_(section), is_printed_(is_printed), images_(images) {}

  // `in_parts`: long names may break after the marks between their parts, "accuracy/" "arc_" "easy".
  std::string Inline(const doc::Text& text, bool in_parts = false) const {
    std::string html;
    for (const doc::Span& span : text.spans()) {
      absl::StrAppend(&html, span.strong ? "<strong>" : "", Written(span, in_parts), span.strong ? "</strong>" : "");
    }
    return html;
  }

  std::string Block(const doc::Paragraph& paragraph) const { return absl::StrCat("<p>", Inline(paragraph.text), "</p>\n"); }

  std::string Block(const doc::Table& table) const {
    const std::vector<std::vector<size_t>> pieces = PiecesOnPaper(table.columns.size());
    const bool is_cut = is_printed_ && pieces.size() > 1;
    std::string text = absl::StrCat("<div class=\"scroll", is_cut ? " on-screen" : "", "\" role=\"region\" aria-label=\"", EscapeXml(table.caption),
                                    "\" tabindex=\"0\">", TableText(table, Numbers(0, table.columns.size()), table.is_sortable, /*with_ids=*/true), "</div>\n");
    if (!is_cut) return text;
    absl::StrAppend(&text, "<div class=\"on-paper\">\n");
    for (const std::vector<size_t>& piece : pieces) absl::StrAppend(&text, TableText(table, piece, /*is_sortable=*/false, /*with_ids=*/false), "\n");
    return absl::StrCat(text, "</div>\n");
  }

  std::string Block(const doc::List& list) const {
    std::string items;
    for (const doc::Text& item : list.items) absl::StrAppend(&items, "<li>", Inline(item), "</li>\n");
    return absl::StrCat("<ul>\n", items, "</ul>\n");
  }

  std::string Block(const doc::NoteList& list) const {
    std::string items;
    for (size_t i = 0; i < list.notes.size(); ++i) {
      absl::StrAppend(&items, "<li id=\"", NoteId(section_, absl::StrCat(i + 1)), "\">", EscapeXml(list.notes[i]), "</li>\n");
    }
    return absl::StrCat("<ol class=\"notes\">\n", items, "</ol>\n");
  }

  std::string Block(const doc::Code& code) const {
    return absl::StrCat("<pre tabindex=\"0\"><code>", EscapeXml(absl::StripTrailingAsciiWhitespace(code.text)), "</code></pre>\n");
  }

  std::string Block(const doc::Details& details) const {
    return absl::StrCat("<details><summary>", Inline(details.summary), "</summary>\n", Block(details.code), "</details>\n");
  }

  std::string Block(const doc::Image& image) const {
    if (images_ == nullptr) return "";
    const auto svg = images_->find(image.file);
    if (svg == images_->end()) return "";
    return absl::StrCat("<figure class=\"chart\"><figcaption>", EscapeXml(image.alt), "</figcaption><img alt=\"", EscapeXml(image.alt),
                        "\" src=\"data:image/svg+xml;base64,", absl::Base64Escape(svg->second), "\"/></figure>\n");
  }

 private:
  std::string Written(const doc::Span& span, bool in_parts) const {
    const std::string text = EscapeXml(span.text);
    switch (span.kind) {
      case doc::Span::kWords: return Figure(span, text);
      case doc::Span::kData: return Figure(span, in_parts ? absl::StrReplaceAll(text, {{"/", "/<wbr/>"}, {"_", "_<wbr/>"}}) : text);
      case doc::Span::kCode: return absl::StrCat("<code>", text, "</code>");
      case doc::Span::kBreak: return "<br/>";
      case doc::Span::kMark:
        return absl::StrCat("<sup><a href=\"#", NoteId(section_, text), "\" aria-label=\"note ", text, "\">", text, "</a></sup>");
      case doc::Span::kLink: return absl::StrCat("<a class=\"file\" href=\"", UrlOf(span.target), "\">", text, "</a>");
    }
    return "";
  }

  // Words that lead to their record where they have one.
  static std::string Figure(const doc::Span& span, const std::string& text) {
    if (span.target.empty()) return text;
    const std::string title = span.detail.empty() ? "" : absl::StrCat(" title=\"", EscapeXml(span.detail), "\"");
    return absl::StrCat("<a class=\"record\"", title, " href=\"#", EscapeXml(span.target), "\">", text, "</a>");
  }

  // The first line large, what follows it small.
  std::string CellText(const doc::Text& text, bool in_parts) const {
    doc::Text first, rest;
    bool is_first = true;
    for (const doc::Span& span : text.spans()) {
      const bool ends_first = is_first && span.kind == doc::Span::kBreak;
      if (ends_first) is_first = false;
      else (is_first ? first : rest).Add(span);
    }
    if (rest.empty()) return Inline(first, in_parts);
    return absl::StrCat(Inline(first, in_parts), "<small>", Inline(rest), "</small>");
  }

  // The named columns of a table. A page has each id once: of several copies of a row one has it.
  std::string TableText(const doc::Table& table, const std::vector<size_t>& columns, bool is_sortable, bool with_ids) const {
    std::string head, body;
    for (const size_t i : columns) {
      const doc::Column& column = table.columns[i];
      absl::StrAppend(&head, "<th scope=\"col\"", column.is_number ? " class=\"n\"" : "", ">", Inline(column.title), "</th>");
    }
    for (const doc::Row& row : table.rows) absl::StrAppend(&body, RowText(table, row, columns, with_ids));
    return absl::StrCat("<table", is_sortable ? " class=\"sortable\"" : "", "><caption>", EscapeXml(table.caption), "</caption>\n<thead><tr>", head,
                        "</tr></thead>\n<tbody>\n", body, "</tbody></table>");
  }

  std::string RowText(const doc::Table& table, const doc::Row& row, const std::vector<size_t>& columns, bool with_ids) const {
    const bool has_id = with_ids && !row.empty() && !row[0].id.empty();
    std::string text = has_id ? absl::StrCat("<tr id=\"", EscapeXml(row[0].id), "\">") : "<tr>";
    for (const size_t i : columns) {
      if (i >= row.size()) continue;
      const bool is_head = i == 0, is_number = table.columns[i].is_number;
      const std::optional<double>& number = row[i].number;
      const std::string order = number.has_value() && std::isfinite(*number) ? absl::StrCat(" data-n=\"", Exact(*number), "\"") : "";
      absl::StrAppend(&text, is_head ? "<th scope=\"row\"" : "<td", is_number ? " class=\"n\"" : "", order, ">", CellText(row[i].text, is_head),
                      is_head ? "</th>" : "</td>");
    }
    return absl::StrCat(text, "</tr>\n");
  }

  const std::string section_;
  const bool is_printed_;
  const std::map<std::string, std::string>* const images_;
};

std::string ChartFigure(const Chart& chart, const RenderedCharts& rendered) {
  const auto svg = rendered.svg.find(chart.id);
  return absl::StrCat("<figure class=\"chart\"><figcaption>", EscapeXml(chart.title), "</figcaption><div class=\"drawing\" role=\"img\" aria-label=\"",
                      EscapeXml(chart.alt), "\" data-chart=\"", EscapeXml(chart.id), "\">", svg == rendered.svg.end() ? "" : svg->second,
                      "</div></figure>\n");
}

std::string ChartsOf(const HtmlPage& page, const std::string& section) {
  if (!page.rendered.ok()) return "";
  std::string figures;
  for (const Chart& chart : page.charts) {
    if (chart.section == section) absl::StrAppend(&figures, ChartFigure(chart, *page.rendered));
  }
  return figures.empty() ? "" : absl::StrCat("<div class=\"charts\">\n", figures, "</div>\n");
}

std::string SectionText(const HtmlPage& page, const doc::Section& section, const std::string& id) {
  const SectionWriter writer(id, section.is_printed, page.rendered.ok() ? nullptr : &page.images);
  std::string text = absl::StrCat("<section", section.is_printed ? "" : " class=\"on-screen\"", " id=\"", id, "\" aria-labelledby=\"", id, "-title\">\n<h2 id=\"", id, "-title\">",
                                  EscapeXml(section.title), "</h2>\n");
  for (const doc::Block& block : section.blocks) {
    absl::StrAppend(&text, std::visit([&](const auto& b) { return writer.Block(b); }, block));
  }
  return absl::StrCat(text, ChartsOf(page, section.title), "</section>\n");
}

std::string FactsText(const doc::Document& document) {
  const SectionWriter writer("", /*is_printed=*/true, nullptr);
  std::string facts;
  for (const auto* list : {&document.facts, &document.dated_facts}) {
    for (const doc::Fact& fact : *list) {
      absl::StrAppend(&facts, "<div><dt>", EscapeXml(absl::StripSuffix(fact.name, ":")), "</dt><dd>", writer.Inline(fact.text), "</dd></div>\n");
    }
  }
  return facts.empty() ? "" : absl::StrCat("<dl>\n", facts, "</dl>\n");
}

std::string Contents(const doc::Document& document, const std::vector<std::string>& ids) {
  std::string items;
  for (size_t i = 0; i < ids.size(); ++i) {
    absl::StrAppend(&items, "<li><a href=\"#", ids[i], "\">", EscapeXml(document.sections[i].title), "</a></li>\n");
  }
  return absl::StrCat("<nav aria-label=\"Sections\"><ul>\n", items, "</ul></nav>\n");
}

// Why charts are missing, where some should stand.
std::string Notice(const HtmlPage& page) {
  if (page.rendered.ok() || page.charts.empty()) return "";
  return absl::StrCat("<p class=\"notice\" role=\"note\">", page.charts.size(), page.charts.size() == 1 ? " chart is" : " charts are",
                      " left out of this page: ", EscapeXml(page.rendered.status().message()), ". ",
                      page.images.empty() ? "" : "Simple plots stand in for some of them. ", "The tables are complete.</p>\n");
}

// JSON that cannot end the script element around it.
std::string EmbeddedJson(const std::string& json) { return absl::StrReplaceAll(json, {{"<", "\\u003c"}}); }

std::string Scripts(const HtmlPage& page) {
  std::string scripts;
  if (page.rendered.ok() && !page.charts.empty()) {
    const std::string specs = EmbeddedJson(ChartsJson(page.charts, /*indent=*/-1));
    absl::StrAppend(&scripts, "<script type=\"application/json\" id=\"charts\">", specs, "</script>\n<script>/*\n", page.rendered->versions,
                    "\n\n", kVegaLicense, "*/\n(function () {\n", page.rendered->script, "\n})();</script>\n");
  }
  return absl::StrCat(scripts, "<script>", kPageScript, "</script>\n");
}

}  // namespace

std::string ToHtml(const HtmlPage& page) {
  const doc::Document& document = page.document;
  const std::vector<std::string> ids = SectionIds(document);
  std::string sections;
  for (size_t i = 0; i < ids.size(); ++i) absl::StrAppend(&sections, SectionText(page, document.sections[i], ids[i]));
  const std::string title = EscapeXml(document.title);
  const std::string head = absl::StrCat("<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
                                        "<meta http-equiv=\"Content-Security-Policy\" content=\"", kPolicy, "\"/>\n<title>", title,
                                        "</title>\n<style>\n", kPageStyle, "</style>\n");
  const std::string header = absl::StrCat("<h1>", title, "</h1>\n<button id=\"theme\" type=\"button\" hidden=\"hidden\">theme</button>\n",
                                          FactsText(document), Contents(document, ids));
  return absl::StrCat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n", head, "</head>\n<body>\n<header>\n", header, "</header>\n<main>\n",
                      Notice(page), sections, "</main>\n", Scripts(page), "</body>\n</html>\n");
}

}  // namespace nibble
