// A document with its charts as one HTML file that loads nothing: style,
// scripts, data and pictures are within it, and its content security policy
// forbids the rest. Tables read without JavaScript, and charts are still
// pictures until it makes them live.
#ifndef NIBBLE_REPORTS_HTML_H_
#define NIBBLE_REPORTS_HTML_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "reports/charts.h"
#include "reports/document.h"
#include "reports/render.h"

namespace nibble {

struct HtmlPage {
  doc::Document document;
  std::vector<Chart> charts;
  // Of all charts, or why there are none: the page says so, and shows the
  // document's images where it has them.
  absl::StatusOr<RenderedCharts> rendered;
  std::map<std::string, std::string> images;  // SVG by file name
};

// Well-formed as XML too, but for the contents of scripts.
std::string ToHtml(const HtmlPage& page);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_HTML_H_
