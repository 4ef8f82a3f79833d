// The replacements of lm-evaluation-harness 0.4.13, task wikitext 2.0, in its order.

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "datasets/task.h"
#include "datasets/whitespace.h"

namespace nibble::datasets {
namespace {

std::string Replace(const std::string& text, absl::string_view from, absl::string_view to) { return absl::StrReplaceAll(text, {{from, to}}); }

// White space goes from both ends of what stands between an `open` and the next `close`.
std::string StripInside(const std::string& text, char open, char close) {
  std::string result;
  size_t at = 0;
  while (true) {
    const size_t begin = text.find(open, at);
    const size_t end = begin == std::string::npos ? begin : text.find(close, begin + 1);
    if (end == std::string::npos) return result.append(text, at);
    const absl::string_view inside = StripWhitespace(absl::string_view(text).substr(begin + 1, end - begin - 1));
    absl::StrAppend(&result, absl::string_view(text).substr(at, begin + 1 - at), inside, absl::string_view(&close, 1));
    at = end + 1;
  }
}

// "/' 5/" becomes the letters "/'[0-9]/": the harness writes its pattern there.
std::string ReplaceQuotedDigits(const std::string& text) {
  std::string result;
  for (size_t at = 0; at < text.size(); ++at) {
    const bool found = text.compare(at, 3, "/' ") == 0 && at + 4 < text.size() && absl::ascii_isdigit(text[at + 3]) && text[at + 4] == '/';
    if (found) {
      result += "/'[0-9]/";
      at += 4;
    } else {
      result.push_back(text[at]);
    }
  }
  return result;
}

}  // namespace

std::string DetokenizeWikitext(const std::string& page) {
  std::string text = ReplaceQuotedDigits(Replace(page, "s '", "s'"));
  constexpr absl::string_view kSpaced[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}, {" : ", ": "}, {" ; ", "; "},
                                              {" . ", ". "},  {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
  for (const auto& [from, to] : kSpaced) text = Replace(text, from, to);
  for (const char* pair : {"()", "[]", "{}", "\"\"", "''"}) text = StripInside(text, pair[0], pair[1]);
  constexpr absl::string_view kLast[][2] = {{"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},    {" \u00b0 ", "\u00b0"},
                                            {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
  for (const auto& [from, to] : kLast) text = Replace(text, from, to);
  return text;
}

}  // namespace nibble::datasets
