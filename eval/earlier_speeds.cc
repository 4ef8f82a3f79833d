#include "eval/earlier_speeds.h"

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/status.h"

namespace nibble::eval {

absl::StatusOr<EarlierSpeeds> EarlierSpeeds::Read(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  NIBBLE_ASSIGN_OR_RETURN(nlohmann::json file, ParseJson(text, path));
  if (file.is_object() && file.contains("speeds") && file["speeds"].is_array()) return EarlierSpeeds(std::move(file));
  return absl::InvalidArgumentError(absl::StrCat(path, ": has no speeds; give a file that `nibble bench --json` wrote"));
}

double EarlierSpeeds::TokensPerSecond(const std::string& name) const {
  for (const auto& speed : file_["speeds"]) {
    if (speed.is_object() && speed.contains("name") && speed["name"] == name && speed.contains("tokens_per_s") && speed["tokens_per_s"].is_number()) {
      return speed["tokens_per_s"].get<double>();
    }
  }
  return 0;
}

std::vector<std::string> EarlierSpeeds::OtherSettings(const nlohmann::ordered_json& settings) const {
  std::vector<std::string> others;
  if (!file_.contains("settings")) return others;
  for (const auto& [name, value] : settings.items()) {
    const nlohmann::json before = file_["settings"].is_object() ? file_["settings"].value(name, nlohmann::json()) : nlohmann::json();
    if (before != nlohmann::json(value)) others.push_back(absl::StrCat("measured with ", name, " ", before.dump(), ", this with ", value.dump()));
  }
  return others;
}

}  // namespace nibble::eval
