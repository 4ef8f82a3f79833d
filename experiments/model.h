// A model ready for pipelines: its source and the graph built over it.
#ifndef NIBBLE_EXPERIMENTS_MODEL_H_
#define NIBBLE_EXPERIMENTS_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/io/model_loader.h"
#include "core/ir/graph.h"
#include "core/runtime/plan.h"
#include "methods/method.h"

namespace nibble {

struct OpenedModel {
  io::LoadedModel source;
  ir::Graph graph;
};

// `spec` as io::LoadModel takes it. Parameters stay where they are until they
// are asked for.
absl::StatusOr<OpenedModel> OpenModel(const std::string& spec);

// What methods find beside the graph of a model whose source has the hash `hash`. Relative
// data paths start at `directory`; `cache` keeps what is learned, "" nothing.
Workplace WorkplaceOf(const OpenedModel& model, const std::string& directory, const std::string& cache, const std::string& hash);

// An error where the weights take more than the machine's memory, so that to run the model
// would read its files anew for each token. Pipelines, which take a block at a time, and
// inspection need not ask.
absl::Status CheckFitsMemory(const OpenedModel& model);

// The plan of a model that fits, for the kernels that this machine runs best. Errors name
// the model.
absl::StatusOr<std::unique_ptr<Plan>> PlanOf(const OpenedModel& model);

// "bf16" rounds what linears and attention multiply to bf16 where the graph has no scheme
// for it, as hardware with bf16 products does; "fp32" leaves the graph as it is.
absl::Status SetProductInputs(absl::string_view dtype, ir::Graph& graph);

// Writes `graph`, made from `source` by `pipeline`, so that OpenModel reads it again.
// "folder": encoded parameters in safetensors, activation schemes in nibble.json, the
// tokenizer beside them. "gguf" (a file), "compressed-tensors" and "meta" (folders) are
// layouts of other programs, which refuse what they cannot hold; "meta" leaves out a
// tokenizer.model that cannot hold the tokenizer, and says so on stderr. One parameter is
// held at a time.
absl::Status SaveModel(const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline, const std::string& path,
                       const std::string& format = "folder");

// An error for a format that is none of these.
absl::Status CheckSaveFormat(const std::string& format);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_MODEL_H_
