// A model ready for pipelines: its source and the graph built over it.
#ifndef NIBBLE_EXPERIMENTS_MODEL_H_
#define NIBBLE_EXPERIMENTS_MODEL_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/io/model_loader.h"
#include "core/ir/graph.h"

namespace nibble {

struct OpenedModel {
  io::LoadedModel source;
  ir::Graph graph;
};

// `spec` as io::LoadModel takes it. Parameters stay where they are until they
// are asked for.
absl::StatusOr<OpenedModel> OpenModel(const std::string& spec);

// "bf16" rounds each linear's input to bf16 where the graph has no scheme for
// it, as hardware with bf16 products does; "fp32" leaves the graph as it is.
absl::Status SetLinearInputs(absl::string_view dtype, ir::Graph& graph);

// Writes `graph`, made from `source` by `pipeline`, as a folder that OpenModel
// reads: encoded parameters in safetensors, activation schemes in nibble.json,
// the tokenizer beside them. One parameter is held at a time. `format` is one of
// SaveFormats(): "folder", or a layout of other programs, which refuses what it
// cannot hold.
absl::Status SaveModel(const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline, const std::string& folder,
                       const std::string& format = "folder");

// "folder", "compressed-tensors", "meta".
std::vector<std::string> SaveFormats();

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_MODEL_H_
