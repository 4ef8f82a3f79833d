#include "core/base/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"

namespace nibble {
namespace {

// Steps of one match; far more than an answer of a few hundred tokens needs.
constexpr uint32_t kMatchLimit = 1'000'000, kHeapKilobytes = 4096;

constexpr size_t kShown = 100;  // characters of an expression in a message

using MatchData = std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)>;

MatchData NewMatchData(const pcre2_code* code) { return {pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free}; }

std::string Message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;

  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }

  std::vector<std::pair<std::string, int>> Names() const {
    uint32_t count = 0, size = 0;
    PCRE2_SPTR table = nullptr;
    pcre2_pattern_info(code, PCRE2_INFO_NAMECOUNT, &count);
    pcre2_pattern_info(code, PCRE2_INFO_NAMEENTRYSIZE, &size);
    pcre2_pattern_info(code, PCRE2_INFO_NAMETABLE, &table);
    std::vector<std::pair<std::string, int>> names;
    // An entry: the group's number in two bytes, its name with a zero.
    for (uint32_t i = 0; i < count; ++i) {
      const PCRE2_SPTR entry = table + i * size;
      names.emplace_back(reinterpret_cast<const char*>(entry + 2), entry[0] << 8 | entry[1]);
    }
    return names;
  }
};

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF,
                             &error, &offset, nullptr);
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("regex '", pattern.substr(0, kShown), "' is wrong at character ", offset, ": ", Message(error)));
  }
  code->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->context, kMatchLimit);
  pcre2_set_heap_limit(code->context, kHeapKilobytes);
  Regex regex;
  regex.pattern_ = std::string(pattern);
  regex.names_ = code->Names();
  regex.code_ = std::move(code);
  return regex;
}

absl::StatusOr<bool> Regex::Match(absl::string_view text, size_t start, uint32_t options, pcre2_real_match_data_8* data) const {
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start, options, data, code_->context);
  if (found >= 0 || found == PCRE2_ERROR_NOMATCH) return found >= 0;
  return absl::InvalidArgumentError(absl::StrCat("regex '", pattern_.substr(0, kShown), "' on a text of ", text.size(), " bytes: ", Message(found)));
}

absl::StatusOr<bool> Regex::MatchesStart(absl::string_view text) const { return Match(text, 0, PCRE2_ANCHORED, NewMatchData(code_->code).get()); }

absl::StatusOr<std::vector<std::vector<absl::string_view>>> Regex::FindAll(absl::string_view text) const {
  const MatchData data = NewMatchData(code_->code);
  std::vector<std::vector<absl::string_view>> matches;
  size_t start = 0;
  bool after_empty = false;  // an empty match at `start` has been found
  while (start <= text.size()) {
    const uint32_t options = after_empty ? PCRE2_NOTEMPTY_ATSTART : 0;
    NIBBLE_ASSIGN_OR_RETURN(const bool found, Match(text, start, options, data.get()));
    if (!found) break;
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    std::vector<absl::string_view>& groups = matches.emplace_back(pcre2_get_ovector_count(data.get()));
    for (size_t g = 0; g < groups.size(); ++g) {
      if (ends[2 * g] != PCRE2_UNSET && ends[2 * g] <= ends[2 * g + 1]) groups[g] = text.substr(ends[2 * g], ends[2 * g + 1] - ends[2 * g]);
    }
    after_empty = ends[0] == ends[1];
    start = std::max<size_t>(start, ends[1]);
  }
  return matches;
}

absl::StatusOr<std::string> Regex::Remove(absl::string_view text) const {
  NIBBLE_ASSIGN_OR_RETURN(const auto matches, FindAll(text));
  std::string rest;
  const char* at = text.data();
  for (const auto& groups : matches) {
    rest.append(at, groups[0].data());
    at = groups[0].data() + groups[0].size();
  }
  return rest.append(at, text.data() + text.size());
}

}  // namespace nibble
