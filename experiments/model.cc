#include "experiments/model.h"

#include <cstdio>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/io/compressed_tensors_writer.h"
#include "core/io/gguf_model_writer.h"
#include "core/io/hf_folder.h"
#include "core/io/meta_folder.h"
#include "core/io/tokenizer_extras.h"
#include "core/ir/passes.h"
#include "core/models/llama.h"
#include "core/text/tiktoken.h"

namespace nibble {

absl::StatusOr<OpenedModel> OpenModel(const std::string& spec) {
  NIBBLE_ASSIGN_OR_RETURN(io::LoadedModel source, io::LoadModel(spec));
  auto graph = BuildLlama(source.config, source.weights, source.attachments);
  if (!graph.ok()) return Annotate(graph.status(), spec);
  return OpenedModel{std::move(source), *std::move(graph)};
}

Workplace WorkplaceOf(const OpenedModel& model, const std::string& directory, const std::string& cache, const std::string& hash) {
  return {model.source.tokenizer.get(), directory, cache, hash, model.source.config.max_position_embeddings};
}

absl::Status CheckFitsMemory(const OpenedModel& model) {
  return CheckMemory(absl::StrCat("model '", model.source.source, "'"), static_cast<double>(model.source.weight_bytes),
                     "take a smaller model, or make one of it with nibble quantize, which holds one block at a time");
}

absl::StatusOr<std::unique_ptr<Plan>> PlanOf(const OpenedModel& model) {
  NIBBLE_RETURN_IF_ERROR(CheckFitsMemory(model));
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  auto plan = Plan::Create(model.graph, *table);
  if (!plan.ok()) return Annotate(plan.status(), model.source.source);
  return plan;
}

absl::Status SetProductInputs(absl::string_view dtype, ir::Graph& graph) {
  if (dtype == "fp32") return absl::OkStatus();
  if (dtype != "bf16") return absl::InvalidArgumentError(absl::StrCat("dtype: expected fp32 or bf16, got '", dtype, "'"));
  for (ir::Op& op : graph.mutable_ops()) {
    const bool multiplies = op.is_linear() || op.kind == ir::OpKind::kAttention;
    if (multiplies && !op.activation.has_value()) op.activation = FloatScheme("bf16");
  }
  return ir::Verify(graph);
}

namespace {

// `graph` as what writers take. It refers to the graph.
absl::StatusOr<io::Checkpoint> CheckpointOf(const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline) {
  io::Checkpoint checkpoint;
  checkpoint.config = source.config;
  checkpoint.config.tie_word_embeddings = graph.tied();
  checkpoint.pipeline = source.pipeline.empty() ? pipeline : absl::StrCat(source.pipeline, " -> ", pipeline);
  checkpoint.note = source.note;
  checkpoint.attachments = ir::AttachmentsOf(graph);
  std::map<std::string, ir::ParameterId> ids;
  for (const ir::Op& op : graph.ops()) {
    if (!op.weight.has_value() || !ids.emplace(graph.parameter(*op.weight).name(), *op.weight).second) continue;
    const ir::Parameter& parameter = graph.parameter(*op.weight);
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
    checkpoint.parameters.push_back({parameter.name(), value.scheme, value.shape});
  }
  checkpoint.load = [&graph, ids = std::move(ids)](const std::string& name) { return graph.parameter(ids.at(name)).Load(); };
  return checkpoint;
}

// A folder, with the tokenizer as Hugging Face's files.
template <absl::Status (*kWrite)(const std::string& folder, const io::Checkpoint& checkpoint)>
absl::Status SaveFolder(const io::LoadedModel& source, io::Checkpoint checkpoint, const std::string& folder) {
  if (source.tokenizer != nullptr) {
    checkpoint.tokenizer_json = source.tokenizer->ToJson();
    NIBBLE_ASSIGN_OR_RETURN(const io::TokenizerExtras extras, io::ReadTokenizerExtras(source.files, source.tokenizer.get()));
    checkpoint.tokenizer_config_json = io::TokenizerConfigJson(*source.tokenizer, extras);
  }
  return kWrite(folder, checkpoint);
}

// With tiktoken's tokenizer.model as well, the one that Meta's programs read.
absl::Status SaveMeta(const io::LoadedModel& source, io::Checkpoint checkpoint, const std::string& folder) {
  if (source.tokenizer == nullptr) return SaveFolder<io::WriteMetaFolder>(source, std::move(checkpoint), folder);
  const absl::StatusOr<std::string> tiktoken = text::ToTiktoken(*source.tokenizer);
  if (tiktoken.ok()) checkpoint.tokenizer_model = *tiktoken;
  NIBBLE_RETURN_IF_ERROR(SaveFolder<io::WriteMetaFolder>(source, std::move(checkpoint), folder));
  if (tiktoken.ok()) return absl::OkStatus();
  const std::string reason(tiktoken.status().message());
  std::fprintf(stderr, "%s has a tokenizer.json and no tokenizer.model: %s\n", folder.c_str(), reason.c_str());
  return absl::OkStatus();
}

absl::Status SaveGguf(const io::LoadedModel& source, io::Checkpoint checkpoint, const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const io::TokenizerExtras extras, io::ReadTokenizerExtras(source.files, source.tokenizer.get()));
  const std::string name = std::filesystem::path(source.source).stem().string();
  NIBBLE_ASSIGN_OR_RETURN(const io::GgufGeneral general, io::ReadGgufGeneral(source.files));
  return io::WriteGgufModel(path, name.empty() ? source.source : name, checkpoint, source.tokenizer.get(), extras, general);
}

struct SaveFormat {
  const char* name;
  absl::Status (*save)(const io::LoadedModel& source, io::Checkpoint checkpoint, const std::string& path);
};
constexpr SaveFormat kSaveFormats[] = {{"folder", SaveFolder<io::WriteCheckpoint>},
                                       {"gguf", SaveGguf},
                                       {"compressed-tensors", SaveFolder<io::WriteCompressedTensors>},
                                       {"meta", SaveMeta}};

absl::StatusOr<const SaveFormat*> FindSaveFormat(const std::string& name) {
  std::vector<std::string> names;
  for (const SaveFormat& format : kSaveFormats) {
    if (name == format.name) return &format;
    names.push_back(format.name);
  }
  return absl::InvalidArgumentError(UnknownName("format", name, names));
}

}  // namespace

absl::Status CheckSaveFormat(const std::string& format) { return FindSaveFormat(format).status(); }

absl::Status SaveModel(const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline, const std::string& path,
                       const std::string& format) {
  NIBBLE_ASSIGN_OR_RETURN(const SaveFormat* known, FindSaveFormat(format));
  NIBBLE_ASSIGN_OR_RETURN(io::Checkpoint checkpoint, CheckpointOf(source, graph, pipeline));
  return known->save(source, std::move(checkpoint), path);
}

}  // namespace nibble
