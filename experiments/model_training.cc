#include "experiments/model_training.h"

#include "absl/strings/str_cat.h"
#include "core/base/memory.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/io/hf_folder.h"
#include "core/models/llama.h"
#include "core/runtime/plan.h"
#include "datasets/registry.h"
#include "datasets/text.h"
#include "eval/perplexity.h"
#include "experiments/input_hashes.h"
#include "experiments/model.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

// A master, its gradient and two moments in fp32.
constexpr double kBytesPerParameter = 16;

absl::StatusOr<LlamaConfig> ConfigOf(const ModelTraining::Shape& shape, const text::Tokenizer& tokenizer) {
  LlamaConfig config;
  config.hidden_size = shape.hidden_size();
  config.intermediate_size = shape.intermediate_size();
  config.num_hidden_layers = shape.num_hidden_layers();
  config.num_attention_heads = shape.num_attention_heads();
  config.num_key_value_heads = shape.num_key_value_heads();
  config.head_dim = shape.num_attention_heads() > 0 ? shape.hidden_size() / shape.num_attention_heads() : 0;
  config.max_position_embeddings = shape.max_position_embeddings();
  config.rope_theta = shape.rope_theta();
  config.tie_word_embeddings = shape.tie_word_embeddings();
  config.vocab_size = tokenizer.vocabulary_size();
  config.bos_token_id = tokenizer.bos_id();
  if (tokenizer.eos_id().has_value()) config.eos_token_ids = {*tokenizer.eos_id()};
  NIBBLE_RETURN_IF_ERROR(Annotate(config.Validate(), "shape"));
  return config;
}

absl::StatusOr<OpenedModel> Start(const ModelTraining& config, const std::string& directory) {
  if (config.has_model() == config.has_shape()) {
    return absl::InvalidArgumentError("give either model (to go on from one) or shape and tokenizer (to begin anew)");
  }
  if (config.has_model() && config.has_tokenizer()) return absl::InvalidArgumentError("tokenizer: a model that training goes on from has its own; leave it out");
  if (config.has_model()) return OpenModel(config.model());
  if (!config.has_tokenizer()) return absl::InvalidArgumentError("tokenizer is missing: a tokenizer.model or tokenizer.json file");
  OpenedModel model;
  NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(config.tokenizer(), directory));
  NIBBLE_ASSIGN_OR_RETURN(model.source.tokenizer, io::ReadTokenizerFile(resolved.path));
  NIBBLE_ASSIGN_OR_RETURN(model.source.config, ConfigOf(config.shape(), *model.source.tokenizer));
  model.source.source = config.name();
  model.source.weights = SyntheticWeights(model.source.config, config.training().seed());
  NIBBLE_ASSIGN_OR_RETURN(model.graph, BuildLlama(model.source.config, model.source.weights));
  return model;
}

// The held-out texts, which are none of those to learn from: before a long training, not
// after it.
absl::StatusOr<std::vector<eval::TextWindows>> ReadHeldOut(const ModelTraining& config, const std::string& directory, const OpenedModel& model) {
  std::vector<MetricRequest> requests;
  std::vector<eval::TextWindows> texts;
  eval::WindowOptions options;
  options.window = config.data().window();
  for (const std::string& name : config.held_out()) {
    requests.emplace_back().mutable_perplexity()->set_text(name);
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(name, directory));
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, datasets::ReadText(resolved.path));
    auto windows = eval::MakeWindows(resolved.label, *model.source.tokenizer, text, options);
    if (!windows.ok()) return Annotate(windows.status(), absl::StrCat("held_out: ", resolved.path));
    texts.push_back(*std::move(windows));
  }
  NIBBLE_RETURN_IF_ERROR(Annotate(InputHashes(directory).CheckHeldOut(config.data(), requests), "held_out"));
  return texts;
}

absl::StatusOr<std::vector<Metric>> MeasureHeldOut(const std::vector<eval::TextWindows>& texts, const OpenedModel& model, ThreadPool& pool) {
  std::vector<Metric> metrics;
  if (texts.empty()) return metrics;
  NIBBLE_ASSIGN_OR_RETURN(const auto* table, kernels::ChooseTable());
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(model.graph, *table));
  for (const eval::TextWindows& windows : texts) {
    NIBBLE_ASSIGN_OR_RETURN(auto measured, eval::MeasurePerplexity(*plan, pool, windows));
    metrics.insert(metrics.end(), measured.begin(), measured.end());
  }
  return metrics;
}

}  // namespace

absl::StatusOr<ModelTrainingResult> TrainModel(const ModelTraining& config, const std::string& directory, const std::string& out, int threads) {
  NIBBLE_RETURN_IF_ERROR(CheckTraining(config.training()));
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, Start(config, directory));
  NIBBLE_RETURN_IF_ERROR(CheckMemory(absl::StrCat("training '", config.name(), "', ", model.source.config.ParameterCount(), " parameters,"),
                                     kBytesPerParameter * static_cast<double>(model.source.config.ParameterCount()), "take a smaller shape"));
  NIBBLE_RETURN_IF_ERROR(CheckData(config.data()));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<eval::TextWindows> held_out, ReadHeldOut(config, directory, model));
  ThreadPool pool(ThreadsOrAll(threads));
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, model.source.Hash());
  Context context(pool, WorkplaceOf(model, directory, out + "/work", hash));
  NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, config.data()));
  NIBBLE_ASSIGN_OR_RETURN(auto masters, MastersOf(context, model.graph, AllParameters(model.graph), /*round_floats=*/false));
  ModelTrainingResult result;
  for (const auto& master : masters) result.parameters += static_cast<int64_t>(master.master.size());
  const Lesson lesson = {"train", config.training(), ProtoToLine(config.shape()), &sequences};
  NIBBLE_RETURN_IF_ERROR(Learn(context, lesson, std::move(masters), LanguageModelOf(sequences), model.graph));
  result.curve = context.curves()[0];
  result.events = context.events();
  NIBBLE_RETURN_IF_ERROR(SaveModel(model.source, model.graph, absl::StrCat("train { ", ProtoToLine(config.training()), " }"), out));
  NIBBLE_ASSIGN_OR_RETURN(result.held_out, MeasureHeldOut(held_out, model, pool));
  return result;
}

}  // namespace nibble
