#include <cstdlib>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/base/subprocess.h"
#include "tools/command.h"

namespace nibble::tools {

absl::StatusOr<int> ThreadsOf(const Options& options) {
  if (!options.Has("threads")) return 0;
  const int threads = options.Get<int>("threads");
  if (threads < 1) return absl::InvalidArgumentError(absl::StrCat("--threads: got ", threads, ", expected 1 or more (leave it out for all CPUs)"));
  return threads;
}

std::string OutFolderOf(const Options& options) {
  if (options.Has("out")) return options.Text("out");
  return absl::StrCat("out/", std::filesystem::path(options.Text("config")).stem().string());
}

std::string SourceCommit() {
  const char* commit = std::getenv("NIBBLE_COMMIT");
  return commit != nullptr ? commit : "";
}

absl::StatusOr<std::vector<Override>> OverridesOf(const Options& options) {
  std::vector<Override> overrides;
  for (const std::string& text : options.List("set")) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not FIELD=VALUE"));
    overrides.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return overrides;
}

std::string CommandLine(std::string start, const Options& options, const std::vector<std::string>& repeated) {
  for (const std::string& name : repeated) {
    for (const std::string& value : options.List(name)) absl::StrAppend(&start, " --", name, " ", ShellWord(value));
  }
  if (options.Has("threads")) absl::StrAppend(&start, " --threads ", options.Get<int>("threads"));
  return start;
}

}  // namespace nibble::tools
