#include "experiments/result_log.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/text/utf8.h"

namespace nibble {

absl::StatusOr<ResultLog> ResultLog::Open(const std::string& dir) {
  ResultLog log(dir);
  if (!FileExists(log.path_)) return log;
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(log.path_));
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    JobResult result;
    // A line torn by a kill is no result; its job runs again.
    if (!JsonToProto(line, &result).ok()) continue;
    if (result.error().empty()) log.finished_.insert(result.key());
  }
  return log;
}

absl::Status ResultLog::Append(JobResult result, absl::string_view records) {
  if (!records.empty()) *result.mutable_records() = WriteRecords(result.key(), records);
  NIBBLE_ASSIGN_OR_RETURN(std::string line, ProtoToJson(result));
  std::FILE* file = std::fopen(path_.c_str(), "ab");
  if (file == nullptr) return absl::FailedPreconditionError(absl::StrCat("cannot append to ", path_));
  std::fseek(file, 0, SEEK_END);
  const long size = std::ftell(file);
  line = absl::StrCat(NeedsNewline() ? "\n" : "", line, "\n");
  const bool written = std::fwrite(line.data(), 1, line.size(), file) == line.size() && std::fflush(file) == 0 && ::fsync(::fileno(file)) == 0;
  if (std::fclose(file) != 0 || !written) {
    std::error_code ignored;
    if (size >= 0) std::filesystem::resize_file(path_, static_cast<uintmax_t>(size), ignored);  // half a line is no result
    return absl::ResourceExhaustedError(absl::StrCat("cannot write ", path_, "; is the disk full?"));
  }
  if (result.error().empty()) finished_.insert(result.key());
  return absl::OkStatus();
}

RecordsFile ResultLog::WriteRecords(const std::string& key, absl::string_view records) const {
  RecordsFile file;
  file.set_name(absl::StrCat("records/", key, ".safetensors"));
  file.set_sha256(Sha256(records));
  absl::Status status = MakeDirectories(dir_ + "/records");
  if (status.ok()) status = WriteFile(absl::StrCat(dir_, "/", file.name()), records);
  if (!status.ok()) file.set_missing(text::WellFormed(status.message()));
  return file;
}

bool ResultLog::NeedsNewline() const {
  const auto file = MappedFile::Open(path_);
  return file.ok() && !(*file)->bytes().empty() && (*file)->bytes().back() != '\n';
}

}  // namespace nibble
