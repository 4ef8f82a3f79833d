// nibble datasets: the data sets known by name, and where they are on this machine.

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "datasets/registry.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

using datasets::FileStatus;

// What a file is called, what it must be and whether it is here.
std::string FileText(const FileStatus& file) {
  const std::string expected = file.sha256.empty() ? "" : absl::StrCat(" (sha256 ", file.sha256, ")");
  if (file.path.empty()) return absl::StrCat("missing: ", file.file, expected);
  return absl::StrCat(file.as_expected ? "found: " : "found, but its SHA-256 is another: ", file.path, expected);
}

std::string SummaryText(const std::vector<FileStatus>& files) {
  if (files.size() == 1) return FileText(files[0]);
  const auto found = std::count_if(files.begin(), files.end(), [](const FileStatus& file) { return file.as_expected; });
  const auto differ = std::count_if(files.begin(), files.end(), [](const FileStatus& file) { return !file.path.empty() && !file.as_expected; });
  return absl::StrCat(found, " of ", files.size(), " files found", differ > 0 ? absl::StrCat(", ", differ, " with another SHA-256") : "",
                      "; nibble datasets NAME lists them with their SHA-256");
}

void PrintTask(const TaskDescription& task, bool all_files) {
  const std::vector<FileStatus> files = datasets::LookUp(task, ".");
  std::string kind = TaskDescription::Kind_Name(task.kind());
  std::transform(kind.begin(), kind.end(), kind.begin(), [](char c) { return c == '_' ? ' ' : static_cast<char>(std::tolower(c)); });
  std::printf("%s\n  %s, version %s%s%s\n", task.name().c_str(), kind.c_str(), task.version().c_str(), task.follows().empty() ? "" : "; as ",
              task.follows().c_str());
  if (!task.alias().empty()) std::printf("  also called %s\n", absl::StrJoin(task.alias(), ", ").c_str());
  if (!task.home().empty()) std::printf("  published at %s\n", task.home().c_str());
  std::printf("  from %s; licence: %s\n", task.url().c_str(), task.licence().c_str());
  if (!task.obtain().empty()) std::printf("  %s\n", task.obtain().c_str());
  if (!all_files) {
    std::printf("  %s\n", SummaryText(files).c_str());
    return;
  }
  for (const FileStatus& file : files) std::printf("  %s\n", FileText(file).c_str());
}

void PrintPlaces() {
  const char* data = std::getenv("NIBBLE_DATA");
  std::printf("Nothing is downloaded: put a set's files, under the names given, below one of these folders (the relative ones are\n"
              "those of a config in the working directory). The first that has a file is taken.\n%s  %s\n\n",
              data == nullptr || *data == '\0' ? "  $NIBBLE_DATA (not set)\n" : "",
              absl::StrJoin(datasets::DataRoots("", "."), "\n  ").c_str());
}

absl::StatusOr<int> Datasets(const Options& options) {
  if (options.Has("name")) {
    const auto task = datasets::FindKnownTask(options.Text("name"));
    if (!task.has_value()) return datasets::UnknownDataset(options.Text("name"), ".");
    PrintPlaces();
    PrintTask(*task, /*all_files=*/true);
    return kDone;
  }
  PrintPlaces();
  for (const TaskDescription& task : datasets::KnownTasks()) PrintTask(task, /*all_files=*/false);
  return kDone;
}

}  // namespace

Command DatasetsCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "datasets";
  command.summary = "Lists the data sets and tasks known by name, and which are on this machine.";
  command.usage = "datasets [NAME]";
  command.examples = "  nibble datasets\n  nibble datasets mmlu_anatomy\n  NIBBLE_DATA=~/data nibble datasets blimp\n";
  command.options.add_options()("name", po::value<std::string>(), "one set, with each of its files");
  command.positional = {"name"};
  command.run = Datasets;
  return command;
}

}  // namespace nibble::tools
