#include <cstdio>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_files.h"
#include "core/io/checkpoint_names.h"
#include "core/io/hf_folder.h"
#include "core/io/safetensors.h"
#include "core/io/scheme_text.h"
#include "core/quant/format.h"
#include "nlohmann/json.hpp"

namespace nibble::io {
namespace {

using nlohmann::json;

// A float parameter is the tensor of its own name.
std::string StoredName(const CheckpointParameter& parameter, const std::string& buffer) {
  return IsFloatFormat(parameter.scheme) ? parameter.name : absl::StrCat(parameter.name, ".", buffer);
}

absl::StatusOr<std::vector<TensorSpec>> Specs(const std::vector<CheckpointParameter>& parameters) {
  std::vector<TensorSpec> specs;
  for (const CheckpointParameter& parameter : parameters) {
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(parameter.scheme), parameter.name));
    if (parameter.shape.empty() || parameter.shape.size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat(parameter.name, ": cannot store shape ", ShapeToString(parameter.shape)));
    }
    NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(parameter.scheme.format()));
    for (const BufferSpec& buffer : format->Layout(parameter.scheme, parameter.shape)) {
      specs.push_back({StoredName(parameter, buffer.name), buffer.dtype, buffer.shape});
    }
  }
  return specs;
}

std::map<std::string, std::string> Metadata(const std::vector<CheckpointParameter>& parameters) {
  json schemes = json::object();
  for (const CheckpointParameter& parameter : parameters) {
    if (IsFloatFormat(parameter.scheme)) continue;
    schemes[parameter.name] = {{"scheme", SchemeToText(parameter.scheme)}, {"shape", parameter.shape}};
  }
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!schemes.empty()) metadata[kSchemesKey] = schemes.dump(-1, ' ', false, json::error_handler_t::replace);
  return metadata;
}

absl::Status WriteParameter(const CheckpointParameter& parameter, const EncodedTensor& tensor, SafetensorsWriter* writer) {
  NIBBLE_RETURN_IF_ERROR(CheckAnnounced(parameter, tensor));
  for (const auto& [name, buffer] : tensor.buffers) {
    NIBBLE_RETURN_IF_ERROR(writer->Write(StoredName(parameter, name), buffer));
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const std::string& path, const Checkpoint& checkpoint) {
  NIBBLE_ASSIGN_OR_RETURN(const auto specs, Specs(checkpoint.parameters));
  NIBBLE_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, specs, Metadata(checkpoint.parameters)));
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, checkpoint.load(parameter.name));
    NIBBLE_RETURN_IF_ERROR(WriteParameter(parameter, tensor, writer.get()));
  }
  return writer->Finish();
}

// With the widest of the float parameters' types: other programs load the model in it, and a
// narrower one would round what is stored.
std::string ConfigJson(const Checkpoint& checkpoint) {
  static constexpr std::pair<const char*, const char*> kWidening[] = {{"bf16", "bfloat16"}, {"fp16", "float16"}, {"fp32", "float32"}};
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(checkpoint.config.ToJson());
  for (const auto& [format, dtype] : kWidening) {
    const auto has = [&, name = format](const CheckpointParameter& parameter) { return parameter.scheme.format() == name; };
    if (std::any_of(checkpoint.parameters.begin(), checkpoint.parameters.end(), has)) config["torch_dtype"] = dtype;
  }
  return config.dump(2) + "\n";
}

std::string NibbleJson(const Checkpoint& checkpoint) {
  nlohmann::ordered_json object = {{"format_version", kFormatVersion}};
  object["activations"] = nlohmann::ordered_json::object();
  const ir::Attachments& attachments = checkpoint.attachments;
  for (const auto& [module, scheme] : attachments.activations) object["activations"][module] = SchemeToText(scheme);
  for (const ir::Adapter& adapter : attachments.adapters) {
    object["adapters"][adapter.module] = {{"rank", adapter.rank}, {"scale", adapter.scale}};
  }
  for (const ir::OnlineRotation& rotation : attachments.rotations) object["rotations"][rotation.module] = rotation.block;
  for (const auto& [module, schemes] : attachments.caches) {
    if (schemes.keys.has_value()) object["caches"][module]["keys"] = SchemeToText(*schemes.keys);
    if (schemes.values.has_value()) object["caches"][module]["values"] = SchemeToText(*schemes.values);
  }
  object["pipeline"] = checkpoint.pipeline;
  object["note"] = checkpoint.note;
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::Status WriteOrRemoveFile(const std::string& path, const std::string& text) {
  if (!text.empty()) return WriteFile(path, text);
  if (FileExists(path) && std::remove(path.c_str()) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("cannot remove ", path));
  }
  return absl::OkStatus();
}

// Files of a model that was in the folder before are taken away: readers would take them
// for this one's.
absl::Status WriteTokenizerFiles(const std::string& folder, const Checkpoint& checkpoint) {
  for (const char* other : {kChatTemplateFile, kQuantizeConfigFile, kGenerationConfigFile, kIndexFile}) {
    NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + other, ""));
  }
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kTokenizerFile, checkpoint.tokenizer_json));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kTokenizerModelFile, checkpoint.tokenizer_model));
  return WriteOrRemoveFile(folder + kTokenizerConfigFile, checkpoint.tokenizer_config_json);
}

absl::Status CheckAnnounced(const CheckpointParameter& parameter, const EncodedTensor& tensor) {
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckEncoded(tensor), parameter.name));
  if (!SameScheme(tensor.scheme, parameter.scheme) || tensor.shape != parameter.shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        parameter.name, ": is ", SchemeToString(tensor.scheme), " ", ShapeToString(tensor.shape), ", announced ",
        SchemeToString(parameter.scheme), " ", ShapeToString(parameter.shape)));
  }
  return absl::OkStatus();
}

absl::Status WriteCheckpoint(const std::string& folder, const Checkpoint& checkpoint) {
  NIBBLE_RETURN_IF_ERROR(checkpoint.config.Validate());
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kConfigFile, ""));
  NIBBLE_RETURN_IF_ERROR(WriteWeights(folder + kWeightsFile, checkpoint));
  NIBBLE_RETURN_IF_ERROR(WriteTokenizerFiles(folder, checkpoint));
  NIBBLE_RETURN_IF_ERROR(WriteFile(folder + kNibbleFile, NibbleJson(checkpoint)));
  return WriteFile(folder + kConfigFile, ConfigJson(checkpoint));
}

}  // namespace nibble::io
