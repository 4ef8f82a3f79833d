#include "experiments/model_store.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr char kReport[] = "build.json";

}  // namespace

std::string ModelStore::PathOf(const std::string& key) const {
  for (const std::string& other : others_) {
    if (FileExists(absl::StrCat(other, "/", key, "/", kReport))) return absl::StrCat(other, "/", key);
  }
  return absl::StrCat(folder_, "/", key);
}

bool ModelStore::Has(const std::string& key) const { return FileExists(absl::StrCat(PathOf(key), "/", kReport)); }

absl::StatusOr<BuildReport> ModelStore::Report(const std::string& key) const {
  BuildReport report;
  const std::string path = absl::StrCat(PathOf(key), "/", kReport);
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(json, &report), path));
  return report;
}

int64_t ModelStore::BytesOf(const std::string& key) const {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(PathOf(key), error)) {
    const auto size = entry.file_size(error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

absl::Status ModelStore::Put(const std::string& key, const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline,
                             const BuildReport& report) {
  if (Has(key)) return absl::OkStatus();
  const std::string unfinished = TemporaryName(PathOf(key));
  NIBBLE_RETURN_IF_ERROR(SaveModel(source, graph, pipeline, unfinished));
  NIBBLE_ASSIGN_OR_RETURN(const std::string json, ProtoToJson(report, /*pretty=*/true));
  NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(unfinished, "/", kReport), json));
  std::error_code error;
  fs::rename(unfinished, PathOf(key), error);
  if (error && Has(key)) {  // another job made the same model meanwhile
    fs::remove_all(unfinished, error);
    return absl::OkStatus();
  }
  if (error) return absl::FailedPreconditionError(absl::StrCat("cannot rename ", unfinished, ": ", error.message()));
  return absl::OkStatus();
}

absl::Status ModelStore::KeepOnly(const std::set<std::string>& keys) {
  if (!IsDirectory(folder_)) return absl::OkStatus();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (keys.count(entry.path().filename().string()) == 0) fs::remove_all(entry.path(), error);
  }
  if (error) return absl::FailedPreconditionError(absl::StrCat("cannot empty ", folder_, ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace nibble
