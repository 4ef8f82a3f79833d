// The figures of an earlier `nibble bench --json`, to compare with.
#ifndef NIBBLE_EVAL_EARLIER_SPEEDS_H_
#define NIBBLE_EVAL_EARLIER_SPEEDS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace nibble::eval {

class EarlierSpeeds {
 public:
  // Errors name the file: it cannot be read, is no JSON, or has no speeds.
  static absl::StatusOr<EarlierSpeeds> Read(const std::string& path);

  // Tokens a second of a case, or 0 where it was not measured.
  double TokensPerSecond(const std::string& name) const;

  // A sentence for each of `settings` that was another then: the two compare two things at once.
  // None where the file has no settings.
  std::vector<std::string> OtherSettings(const nlohmann::ordered_json& settings) const;

 private:
  explicit EarlierSpeeds(nlohmann::json file) : file_(std::move(file)) {}

  nlohmann::json file_;
};

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_EARLIER_SPEEDS_H_
