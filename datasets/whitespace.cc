#include "datasets/whitespace.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace nibble::datasets {
namespace {

constexpr absl::string_view kWhitespace[] = {
    " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",
    "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
    "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

// Bytes of the white-space character that `matches` finds at an end, or 0.
template <typename Matches>
size_t CharacterLength(const Matches& matches) {
  const auto* space = std::find_if(std::begin(kWhitespace), std::end(kWhitespace), matches);
  return space == std::end(kWhitespace) ? 0 : space->size();
}

size_t LeadingLength(absl::string_view text) {
  return CharacterLength([&](absl::string_view space) { return absl::StartsWith(text, space); });
}

}  // namespace

absl::string_view StripLeadingWhitespace(absl::string_view text) {
  while (const size_t length = LeadingLength(text)) text.remove_prefix(length);
  return text;
}

absl::string_view StripTrailingWhitespace(absl::string_view text) {
  while (const size_t length = CharacterLength([&](absl::string_view space) { return absl::EndsWith(text, space); })) text.remove_suffix(length);
  return text;
}

absl::string_view StripWhitespace(absl::string_view text) { return StripTrailingWhitespace(StripLeadingWhitespace(text)); }

int64_t CountWords(absl::string_view text) {
  int64_t words = 1;
  bool in_run = false;
  while (!text.empty()) {
    const size_t length = LeadingLength(text);
    if (length > 0 && !in_run) ++words;
    in_run = length > 0;
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return words;
}

}  // namespace nibble::datasets
