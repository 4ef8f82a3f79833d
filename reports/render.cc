#include "reports/render.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/status.h"
#include "core/base/subprocess.h"
#include "reports/assets.h"

namespace nibble {
namespace {

constexpr char kHowToInstall[] = "; `./nibble setup` installs it";

// A script that would end its element in a page, or begin a comment there.
bool BreaksOut(const std::string& script) {
  const std::string lower = absl::AsciiStrToLower(script);
  return absl::StrContains(lower, "</script") || absl::StrContains(lower, "<script") || absl::StrContains(lower, "<!--");
}

absl::StatusOr<RenderedCharts> ParseAnswer(const std::string& answer) {
  NIBBLE_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(answer, "charts.py"));
  if (json.contains("error")) {
    const std::string error = json["error"].get<std::string>();
    if (json["missing"].get<bool>()) return absl::NotFoundError(absl::StrCat(error, kHowToInstall));
    return absl::InternalError(error);
  }
  RenderedCharts rendered{json["script"].get<std::string>(), json["versions"].get<std::string>(), {}};
  if (BreaksOut(rendered.script)) return absl::InternalError("the JavaScript of vl-convert cannot stand in a page");
  for (const auto& [name, svg] : json["svg"].items()) rendered.svg[name] = svg.get<std::string>();
  return rendered;
}

}  // namespace

std::string PythonPackages() {
  const char* folder = std::getenv("NIBBLE_PYTHON");
  return folder != nullptr && *folder != '\0' ? folder : absl::StrCat(CacheDirectory(), "/python");
}

absl::StatusOr<RenderedCharts> RenderCharts(const std::string& charts_file) {
  const std::string packages = PythonPackages();
  // Python takes half a second to say the same.
  if (!IsDirectory(packages + "/vl_convert")) return absl::NotFoundError(absl::StrCat("no vl-convert in ", packages, kHowToInstall));
  NIBBLE_ASSIGN_OR_RETURN(const std::string answer, RunProgram("python3", {"-I", "-c", kChartsScript, packages, charts_file}, "charts.py"));
  return ParseAnswer(answer);
}

}  // namespace nibble
