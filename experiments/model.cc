#include "experiments/model.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/io/compressed_tensors_writer.h"
#include "core/io/hf_folder.h"
#include "core/io/meta_folder.h"
#include "core/ir/passes.h"
#include "core/models/llama.h"

namespace nibble {

absl::StatusOr<OpenedModel> OpenModel(const std::string& spec) {
  NIBBLE_ASSIGN_OR_RETURN(io::LoadedModel source, io::LoadModel(spec));
  auto graph = BuildLlama(source.config, source.weights, source.attachments);
  if (!graph.ok()) return Annotate(graph.status(), spec);
  return OpenedModel{std::move(source), *std::move(graph)};
}

absl::Status SetLinearInputs(absl::string_view dtype, ir::Graph& graph) {
  if (dtype == "fp32") return absl::OkStatus();
  if (dtype != "bf16") return absl::InvalidArgumentError(absl::StrCat("dtype: expected fp32 or bf16, got '", dtype, "'"));
  for (ir::Op& op : graph.mutable_ops()) {
    if (op.is_linear() && !op.activation.has_value()) op.activation = FloatScheme("bf16");
  }
  return ir::Verify(graph);
}

namespace {

struct SaveFormat {
  const char* name;
  absl::Status (*write)(const std::string& folder, const io::Checkpoint& checkpoint);
};
constexpr SaveFormat kSaveFormats[] = {
    {"folder", io::WriteCheckpoint}, {"compressed-tensors", io::WriteCompressedTensors}, {"meta", io::WriteMetaFolder}};

}  // namespace

std::vector<std::string> SaveFormats() {
  std::vector<std::string> names;
  for (const SaveFormat& format : kSaveFormats) names.push_back(format.name);
  return names;
}

absl::Status SaveModel(const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline, const std::string& folder,
                       const std::string& format) {
  io::Checkpoint checkpoint;
  checkpoint.config = source.config;
  checkpoint.config.tie_word_embeddings = graph.tied();
  checkpoint.pipeline = pipeline;
  checkpoint.note = source.note;
  checkpoint.attachments = ir::AttachmentsOf(graph);
  std::map<std::string, ir::ParameterId> ids;
  for (const ir::Op& op : graph.ops()) {
    if (!op.weight.has_value() || !ids.emplace(graph.parameter(*op.weight).name(), *op.weight).second) continue;
    const ir::Parameter& parameter = graph.parameter(*op.weight);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
    checkpoint.parameters.push_back({parameter.name(), value.scheme, value.shape});
  }
  checkpoint.load = [&](const std::string& name) { return graph.parameter(ids.at(name)).Load(); };
  if (source.tokenizer != nullptr) {
    checkpoint.tokenizer_json = source.tokenizer->ToJson();
    checkpoint.tokenizer_config_json = source.tokenizer->ToConfigJson();
  }
  for (const SaveFormat& known : kSaveFormats) {
    if (format == known.name) return known.write(folder, checkpoint);
  }
  return absl::InvalidArgumentError(UnknownName("format", format, SaveFormats()));
}

}  // namespace nibble
