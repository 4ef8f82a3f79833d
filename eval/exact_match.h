// What a model said against the answer, as a task of kind EXACT_MATCH describes it.
#ifndef NIBBLE_EVAL_EXACT_MATCH_H_
#define NIBBLE_EVAL_EXACT_MATCH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/regex.h"
#include "datasets/task.pb.h"

namespace nibble::eval {

class AnswerReader {
 public:
  static absl::StatusOr<AnswerReader> Create(const TaskDescription& description);

  // What each filter takes for the answer; kNoAnswer where it finds none. Without
  // filters, all that was said.
  absl::StatusOr<std::vector<std::string>> Answers(absl::string_view said) const;

  // Whether the two are equal after what is to be ignored.
  absl::StatusOr<bool> Matches(absl::string_view answer, absl::string_view gold) const;

  static constexpr char kNoAnswer[] = "[invalid]";

 private:
  struct Filter {
    Regex regex;
    bool last = false;
  };
  absl::StatusOr<std::string> Normal(absl::string_view text) const;

  std::vector<Filter> filters_;
  std::vector<Regex> ignore_;
  bool ignore_case_ = false;
};

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_EXACT_MATCH_H_
