// Regular expressions (PCRE2, Unicode classes) over texts that need not be valid
// UTF-8: a byte that is none matches nothing. Expressions come from files that others
// wrote, so a match has a limit of steps and of memory.
#ifndef NIBBLE_CORE_BASE_REGEX_H_
#define NIBBLE_CORE_BASE_REGEX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct pcre2_real_match_data_8;

namespace nibble {

class Regex {
 public:
  // Error: says where the expression is wrong.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  // Whether the expression matches at the start of `text`. Error: as FindAll.
  absl::StatusOr<bool> MatchesStart(absl::string_view text) const;

  // The matches from left to right, none overlapping; each as its groups, [0] the
  // whole. A group that took no part is "". Views into `text`. Error: a match is
  // given up because it takes too many steps or too much memory.
  absl::StatusOr<std::vector<std::vector<absl::string_view>>> FindAll(absl::string_view text) const;

  // `text` without any match.
  absl::StatusOr<std::string> Remove(absl::string_view text) const;

  // Names of groups with their numbers.
  const std::vector<std::pair<std::string, int>>& names() const { return names_; }
  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  Regex() = default;
  // One match from `start` on, with PCRE2's options, into `data`.
  absl::StatusOr<bool> Match(absl::string_view text, size_t start, uint32_t options, pcre2_real_match_data_8* data) const;

  std::string pattern_;
  std::shared_ptr<const Code> code_;
  std::vector<std::pair<std::string, int>> names_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_REGEX_H_
