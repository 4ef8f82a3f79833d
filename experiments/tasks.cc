#include "experiments/tasks.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "datasets/registry.h"
#include "experiments/text_config.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// A description file, with what it takes from a known task.
absl::StatusOr<TaskDescription> ReadDescription(const std::string& path) {
  TaskDescription written;
  NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &written));
  if (written.has_base() && !(written.has_name() && written.has_version())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": base: \"", written.base(), "\": what is changed is another task; give it a name and a version of its own"));
  }
  const auto description = datasets::WithBase(written);
  if (!description.ok()) return Annotate(description.status(), path);
  NIBBLE_RETURN_IF_ERROR(Annotate(datasets::CheckDescription(*description), path));
  return description;
}

// Items {query, choices, gold} of a file, or HellaSwag's six lines.
TaskDescription PlainChoices(const std::string& path, TaskDescription::Format format) {
  TaskDescription description;
  description.set_name(fs::path(path).filename().string());
  description.set_version("1");
  description.set_kind(TaskDescription::MULTIPLE_CHOICE);
  description.set_format(format);
  description.add_part()->set_file(path);
  description.set_context("{query}");
  description.add_choice("{choices}");
  description.set_gold_index("{gold}");
  return description;
}

absl::StatusOr<datasets::ResolvedTask> FindKnown(const std::string& name, const std::string& directory) {
  auto known = datasets::FindKnownTask(name);
  if (!known.has_value()) return datasets::UnknownDataset(name, directory);
  return datasets::ResolveFiles(*std::move(known), "", directory);
}

absl::StatusOr<datasets::ResolvedTask> FindChoices(const MultipleChoice& request, const std::string& directory) {
  const auto file = datasets::FindFile(request.set(), directory);
  if (!file.has_value()) return FindKnown(request.set(), directory);
  const bool hellaswag = request.format() == MultipleChoice::HELLASWAG;
  return datasets::ResolveFiles(PlainChoices(fs::absolute(*file).string(), hellaswag ? TaskDescription::HELLASWAG : TaskDescription::AUTO), "",
                                directory);
}

}  // namespace

absl::StatusOr<datasets::ResolvedTask> FindTask(const MetricRequest& request, const std::string& directory) {
  if (request.has_multiple_choice()) return FindChoices(request.multiple_choice(), directory);
  const std::string& name = request.task().task();
  if (!absl::EndsWith(name, ".textproto")) return FindKnown(name, directory);
  const auto file = datasets::FindFile(name, directory);
  if (!file.has_value()) return absl::NotFoundError(absl::StrCat("task '", name, "': no such file, from ", directory, " or the working directory"));
  NIBBLE_ASSIGN_OR_RETURN(TaskDescription description, ReadDescription(*file));
  return datasets::ResolveFiles(std::move(description), DirectoryOf(*file), directory);
}

absl::StatusOr<datasets::Task> LoadTask(const MetricRequest& request, const std::string& directory) {
  NIBBLE_ASSIGN_OR_RETURN(const datasets::ResolvedTask resolved, FindTask(request, directory));
  datasets::TaskOptions options;
  options.limit = request.has_task() ? request.task().limit() : request.multiple_choice().limit();
  if (request.has_task() && request.task().has_shots()) options.shots = request.task().shots();
  NIBBLE_ASSIGN_OR_RETURN(datasets::Task task, datasets::ReadTask(resolved, options));
  const std::string& name = request.has_task() ? request.task().name() : request.multiple_choice().name();
  if (!name.empty()) task.label = name;
  return task;
}

}  // namespace nibble
