#include "datasets/registry.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "datasets/known_tasks.h"
#include "google/protobuf/text_format.h"

namespace nibble::datasets {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kQuickstart = "quickstart/";

// `description` with what it leaves unset from `base`.
TaskDescription Merged(const TaskDescription& base, const TaskDescription& description) {
  TaskDescription merged = base;
  merged.clear_alias();
  merged.clear_follows();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  description.GetReflection()->ListFields(description, &fields);
  for (const auto* field : fields) merged.GetReflection()->ClearField(&merged, field);
  merged.MergeFrom(description);
  merged.clear_base();
  return merged;
}

std::vector<TaskDescription> ParseKnownTasks() {
  std::vector<TaskDescription> tasks;
  for (const char* text : kKnownTaskTexts) {
    NIBBLE_CHECK(google::protobuf::TextFormat::ParseFromString(text, &tasks.emplace_back()));
  }
  std::sort(tasks.begin(), tasks.end(), [](const TaskDescription& a, const TaskDescription& b) { return a.name() < b.name(); });
  const std::vector<TaskDescription> written = tasks;
  for (TaskDescription& task : tasks) {
    if (!task.has_base()) continue;
    const auto base = std::find_if(written.begin(), written.end(), [&](const TaskDescription& t) { return t.name() == task.base(); });
    NIBBLE_CHECK(base != written.end() && !base->has_base());
    task = Merged(*base, task);
  }
  return tasks;
}

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error) && !fs::is_directory(path, error);
}

// Absolute, links resolved as far as the path exists.
fs::path Canonical(const fs::path& path) {
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(fs::absolute(path, error), error);
  return error ? path : canonical;
}

// Where a file of a description may stand, in order.
std::vector<std::string> Candidates(const std::string& file, const std::string& folder, const std::string& base_dir) {
  std::vector<std::string> candidates;
  if (fs::path(file).is_absolute()) return {file};
  if (!folder.empty()) candidates.push_back(Canonical(fs::path(folder) / file).string());
  for (const std::string& root : DataRoots(file, base_dir)) candidates.push_back((fs::path(root) / file).string());
  return candidates;
}

absl::Status CheckHash(const TaskDescription& description, const std::string& sha256, const std::string& path) {
  if (sha256.empty()) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(path));
  if (hash == sha256) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, " is not the file of '", description.name(), "': its SHA-256 is ", hash, ", expected ", sha256, " (", description.url(),
                   "). To use the file as it is, give its path instead of the name, or describe it as a task of your own"));
}

// What a description says of its source: ". It comes from ... (published at ...; licence: ...)".
std::string SourceText(const TaskDescription& description) {
  if (description.url().empty()) return "";
  const std::string home = description.home().empty() ? "" : absl::StrCat("published at ", description.home(), "; ");
  return absl::StrCat(". It comes from ", description.url(), " (", home, "licence: ", description.licence(), ")",
                      description.obtain().empty() ? "" : absl::StrCat(". ", description.obtain()));
}

absl::StatusOr<std::string> Locate(const TaskDescription& description, const std::string& file, const std::string& sha256,
                                   const std::string& folder, const std::string& base_dir) {
  const std::vector<std::string> candidates = Candidates(file, folder, base_dir);
  for (const std::string& path : candidates) {
    if (!IsFile(path)) continue;
    NIBBLE_RETURN_IF_ERROR(CheckHash(description, sha256, path));
    return path;
  }
  return absl::NotFoundError(absl::StrCat("data set '", description.name(), "' is not on this machine; looked for ",
                                          absl::StrJoin(candidates, ", "), SourceText(description),
                                          "; put it there or set NIBBLE_DATA to the folder that holds ", file));
}

// `known` with the parts that `keep`.
template <typename Keep>
std::optional<TaskDescription> WithParts(const TaskDescription& known, absl::string_view name, const Keep& keep) {
  TaskDescription chosen = known;
  chosen.set_name(std::string(name));
  chosen.clear_part();
  for (const TaskDescription::Part& part : known.part()) {
    if (keep(part)) *chosen.add_part() = part;
  }
  if (chosen.part().empty()) return std::nullopt;
  return chosen;
}

}  // namespace

const std::vector<TaskDescription>& KnownTasks() {
  static const auto* const kKnown = new std::vector<TaskDescription>(ParseKnownTasks());
  return *kKnown;
}

std::optional<TaskDescription> FindKnownTask(absl::string_view name) {
  const auto every = [](const TaskDescription::Part&) { return true; };
  for (const TaskDescription& known : KnownTasks()) {
    const bool is_alias = std::find(known.alias().begin(), known.alias().end(), name) != known.alias().end();
    if (known.name() == name || is_alias) return WithParts(known, name, every);
  }
  for (const TaskDescription& known : KnownTasks()) {
    absl::string_view rest = name;
    if (!absl::ConsumePrefix(&rest, absl::StrCat(known.name(), "_")) || rest.empty()) continue;
    auto chosen = WithParts(known, name, [&](const TaskDescription::Part& part) { return part.name() == rest; });
    if (!chosen.has_value()) chosen = WithParts(known, name, [&](const TaskDescription::Part& part) { return part.category() == rest; });
    if (chosen.has_value()) return chosen;
  }
  return std::nullopt;
}

absl::StatusOr<TaskDescription> WithBase(const TaskDescription& description) {
  if (!description.has_base()) return description;
  const std::optional<TaskDescription> base = FindKnownTask(description.base());
  if (base.has_value()) return Merged(*base, description);
  std::vector<std::string> names;
  for (const TaskDescription& known : KnownTasks()) names.push_back(known.name());
  return absl::InvalidArgumentError(absl::StrCat("base: ", UnknownName("task", description.base(), names)));
}

std::vector<std::string> DataRoots(absl::string_view file, const std::string& base_dir) {
  const fs::path base = base_dir.empty() ? "." : base_dir;
  std::vector<std::string> roots;
  if (const char* data = std::getenv("NIBBLE_DATA"); data != nullptr && *data != '\0') roots.push_back(Canonical(data).string());
  // Beside the config's folder, or beside the repository that holds it.
  roots.push_back(Canonical(base / ".." / "shared" / "data").string());
  roots.push_back(Canonical(base / ".." / ".." / "shared" / "data").string());
  roots.push_back(Canonical(fs::path(CacheDirectory()) / "data").string());
  if (!absl::StartsWith(file, kQuickstart)) return roots;
  for (fs::path folder = Canonical(base);; folder = folder.parent_path()) {
    roots.push_back((folder / "datasets").string());
    if (folder == folder.parent_path()) break;
  }
  roots.push_back(Canonical("datasets").string());
  return roots;
}

absl::StatusOr<ResolvedTask> ResolveFiles(TaskDescription description, const std::string& folder, const std::string& base_dir) {
  ResolvedTask resolved;
  for (const TaskDescription::Part& part : description.part()) {
    ResolvedTask::Files& files = resolved.parts.emplace_back();
    NIBBLE_ASSIGN_OR_RETURN(files.items, Locate(description, part.file(), part.sha256(), folder, base_dir));
    if (part.shots_file().empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(files.shots, Locate(description, part.shots_file(), part.shots_sha256(), folder, base_dir));
  }
  resolved.description = std::move(description);
  return resolved;
}

std::vector<FileStatus> LookUp(const TaskDescription& description, const std::string& base_dir) {
  std::vector<FileStatus> files;
  const auto add = [&](const std::string& file, const std::string& sha256) {
    FileStatus& status = files.emplace_back(FileStatus{file, sha256, "", false});
    const std::vector<std::string> candidates = Candidates(file, "", base_dir);
    const auto found = std::find_if(candidates.begin(), candidates.end(), IsFile);
    if (found == candidates.end()) return;
    status.path = *found;
    status.as_expected = CheckHash(description, sha256, status.path).ok();
  };
  for (const TaskDescription::Part& part : description.part()) {
    add(part.file(), part.sha256());
    if (!part.shots_file().empty()) add(part.shots_file(), part.shots_sha256());
  }
  return files;
}

absl::Status UnknownDataset(const std::string& name, const std::string& base_dir) {
  std::vector<std::string> names;
  for (const TaskDescription& known : KnownTasks()) names.push_back(known.name());
  const fs::path path(name), base = base_dir.empty() ? "." : base_dir;
  std::string tried = Canonical(path).string();
  if (path.is_relative() && Canonical(base / path) != tried) absl::StrAppend(&tried, ", ", Canonical(base / path).string());
  return absl::NotFoundError(absl::StrCat(UnknownName("data set", name, names), "; no such file either: ", tried));
}

std::optional<std::string> FindFile(const std::string& name_or_path, const std::string& base_dir) {
  const fs::path base = base_dir.empty() ? "." : base_dir, path = name_or_path;
  for (const fs::path& candidate : {path, base / path}) {
    if (IsFile(candidate)) return candidate.string();
  }
  return std::nullopt;
}

absl::StatusOr<ResolvedDataset> ResolveDataset(const std::string& name_or_path, const std::string& base_dir) {
  if (name_or_path.empty()) return absl::InvalidArgumentError("no data set is named");
  if (const auto file = FindFile(name_or_path, base_dir)) return ResolvedDataset{*file, fs::path(name_or_path).filename().string()};
  const std::optional<TaskDescription> known = FindKnownTask(name_or_path);
  if (!known.has_value()) return UnknownDataset(name_or_path, base_dir);
  if (known->part_size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("'", name_or_path, "' is a task of ", known->part_size(), " files, where one file is asked for"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const ResolvedTask resolved, ResolveFiles(*known, "", base_dir));
  return ResolvedDataset{resolved.parts[0].items, known->name()};
}

}  // namespace nibble::datasets
