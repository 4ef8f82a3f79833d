#include "experiments/input_hashes.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "datasets/registry.h"
#include "experiments/expand.h"
#include "experiments/tasks.h"
#include "methods/training/data.h"
#include "methods/training/training.pb.h"

namespace nibble {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Messages within `message`, one level down.
std::vector<const Message*> Within(const Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  std::vector<const Message*> nested;
  for (const FieldDescriptor* field : fields) {
    if (field->message_type() == nullptr) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      nested.push_back(field->is_repeated() ? &reflection.GetRepeatedMessage(message, field, i) : &reflection.GetMessage(message, field));
    }
  }
  return nested;
}

absl::StatusOr<std::vector<std::string>> Resolved(const google::protobuf::RepeatedPtrField<std::string>& names, const std::string& directory) {
  std::vector<std::string> files;
  for (const std::string& name : names) {
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(name, directory));
    files.push_back(resolved.path);
  }
  return files;
}

// Values of fields that are marked as files.
std::vector<std::string> MarkedFiles(const Message& message, const std::string& directory) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  std::vector<std::string> files;
  for (const FieldDescriptor* field : fields) {
    if (field->options().GetExtension(is_file)) files.push_back(PathFrom(directory, reflection.GetString(message, field)));
  }
  return files;
}

// The files that a message names itself.
absl::StatusOr<std::vector<std::string>> FilesNamedBy(const Message& message, const std::string& directory) {
  if (const auto* pairs = google::protobuf::DynamicCastToGenerated<PreferenceData>(&message)) return Resolved(pairs->pairs(), directory);
  const auto* data = google::protobuf::DynamicCastToGenerated<TrainingData>(&message);
  if (data == nullptr) return MarkedFiles(message, directory);
  NIBBLE_ASSIGN_OR_RETURN(std::vector<std::string> files, TextFiles({data->text().begin(), data->text().end()},
                                                                    {data->exclude().begin(), data->exclude().end()}, directory));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> conversations, Resolved(data->conversations(), directory));
  files.insert(files.end(), conversations.begin(), conversations.end());
  return files;
}

}  // namespace

absl::StatusOr<std::string> InputHashes::OfFile(const std::string& path) {
  if (const auto it = files_.find(path); it != files_.end()) return it->second;
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(path));
  return files_[path] = hash;
}

absl::StatusOr<std::string> InputHashes::OfTask(const MetricRequest& request) {
  NIBBLE_ASSIGN_OR_RETURN(const datasets::ResolvedTask task, FindTask(request, directory_));
  // Where the files stand is no part of what they are.
  TaskDescription description = task.description;
  for (auto& part : *description.mutable_part()) part.clear_file();
  std::string parts = ProtoToLine(description);
  for (const auto& files : task.parts) {
    for (const std::string& path : {files.items, files.shots}) {
      if (path.empty()) continue;
      NIBBLE_ASSIGN_OR_RETURN(const std::string hash, OfFile(path));
      absl::StrAppend(&parts, "\n", hash);
    }
  }
  return Sha256(parts);
}

absl::StatusOr<std::string> InputHashes::OfMetric(const MetricRequest& request) {
  if (IsTask(request)) return OfTask(request);
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> files, MeasuredFiles(request));
  return files.empty() ? std::string() : OfFile(files[0]);
}

absl::StatusOr<std::vector<std::string>> InputHashes::FilesOf(const Message& message) const {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<std::string> files, FilesNamedBy(message, directory_));
  for (const Message* nested : Within(message)) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> inside, FilesOf(*nested));
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

absl::StatusOr<std::string> InputHashes::OfOptions(const Message& options) {
  std::string parts;
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(options));
  for (const std::string& file : files) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string hash, OfFile(file));
    absl::StrAppend(&parts, hash, "\n");
  }
  return parts.empty() ? std::string() : Sha256(parts);
}

absl::StatusOr<std::vector<std::string>> InputHashes::MeasuredFiles(const MetricRequest& request) const {
  std::vector<std::string> files;
  if (IsTask(request)) {
    NIBBLE_ASSIGN_OR_RETURN(const datasets::ResolvedTask task, FindTask(request, directory_));
    for (const auto& part : task.parts) files.push_back(part.items);
  } else if (const std::string data = DataOf(request); !data.empty()) {
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(data, directory_));
    files.push_back(resolved.path);
  }
  return files;
}

absl::Status InputHashes::CheckHeldOut(const Message& options, absl::Span<const MetricRequest> metrics) {
  std::map<std::string, std::string> read;
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(options));
  if (files.empty()) return absl::OkStatus();
  for (const std::string& file : files) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string hash, OfFile(file));
    read[hash] = file;
  }
  for (const MetricRequest& request : metrics) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> measured, MeasuredFiles(request));
    for (const std::string& file : measured) {
      NIBBLE_ASSIGN_OR_RETURN(const std::string hash, OfFile(file));
      if (const auto it = read.find(hash); it != read.end()) {
        return absl::InvalidArgumentError(absl::StrCat("a step reads ", it->second, ", which the metric { ", ProtoToLine(request),
                                                       " } measures; give one of them other text (an experiment may say allow_test_data: true)"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
