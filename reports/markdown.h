// A document as Markdown.
#ifndef NIBBLE_REPORTS_MARKDOWN_H_
#define NIBBLE_REPORTS_MARKDOWN_H_

#include <string>

#include "reports/document.h"

namespace nibble {

std::string ToMarkdown(const doc::Document& document);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_MARKDOWN_H_
