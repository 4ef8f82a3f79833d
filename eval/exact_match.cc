#include "eval/exact_match.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "core/base/status.h"
#include "datasets/whitespace.h"

namespace nibble::eval {
namespace {

// lm-evaluation-harness's "flexible-extract".
constexpr char kNumber[] = "(-?[$0-9.,]{2,})|(-?[0-9]+)";

// A match's value: all of it where the expression has no groups, its one group, or
// the first of several that took part.
std::string ValueOf(const std::vector<absl::string_view>& groups) {
  if (groups.size() <= 2) return std::string(datasets::StripWhitespace(groups.back()));
  const auto taken = std::find_if(groups.begin() + 1, groups.end(), [](absl::string_view group) { return !group.empty(); });
  return taken == groups.end() ? AnswerReader::kNoAnswer : std::string(datasets::StripWhitespace(*taken));
}

}  // namespace

absl::StatusOr<AnswerReader> AnswerReader::Create(const TaskDescription& description) {
  AnswerReader reader;
  for (const auto& filter : description.filter()) {
    NIBBLE_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(filter.last_number() ? kNumber : filter.regex()));
    reader.filters_.push_back({std::move(regex), filter.last_number() || filter.pick() == TaskDescription::Filter::LAST});
  }
  for (const std::string& ignore : description.ignore()) {
    NIBBLE_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(ignore));
    reader.ignore_.push_back(std::move(regex));
  }
  reader.ignore_case_ = description.ignore_case();
  return reader;
}

absl::StatusOr<std::vector<std::string>> AnswerReader::Answers(absl::string_view said) const {
  if (filters_.empty()) return std::vector<std::string>{std::string(said)};
  std::vector<std::string> answers;
  for (const Filter& filter : filters_) {
    NIBBLE_ASSIGN_OR_RETURN(const auto matches, filter.regex.FindAll(said));
    answers.push_back(matches.empty() ? kNoAnswer : ValueOf(filter.last ? matches.back() : matches.front()));
  }
  return answers;
}

absl::StatusOr<bool> AnswerReader::Matches(absl::string_view answer, absl::string_view gold) const {
  NIBBLE_ASSIGN_OR_RETURN(const std::string a, Normal(answer));
  NIBBLE_ASSIGN_OR_RETURN(const std::string b, Normal(gold));
  return a == b;
}

absl::StatusOr<std::string> AnswerReader::Normal(absl::string_view text) const {
  std::string normal(text);
  for (const Regex& ignore : ignore_) {
    NIBBLE_ASSIGN_OR_RETURN(normal, ignore.Remove(normal));
  }
  if (ignore_case_) absl::AsciiStrToLower(&normal);
  return std::string(datasets::StripWhitespace(normal));
}

}  // namespace nibble::eval
