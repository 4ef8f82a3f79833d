// What methods attach to a graph beside its weights: a checkpoint keeps it, and
// gives it back to the graph that the model's builder makes.
#ifndef NIBBLE_CORE_IR_ATTACHMENTS_H_
#define NIBBLE_CORE_IR_ATTACHMENTS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/ir/adapters.h"
#include "core/ir/graph.h"
#include "core/ir/rotations.h"

namespace nibble::ir {

struct Attachments {
  std::map<std::string, QuantScheme> activations;  // by the linear's module name
  std::vector<OnlineRotation> rotations;
  std::vector<Adapter> adapters;
  struct CacheSchemes {
    std::optional<QuantScheme> keys, values;
  };
  std::map<std::string, CacheSchemes> caches;  // by the attention's module name
};

Attachments AttachmentsOf(const Graph& graph);

// `source` makes the sources of the adapters' parameters. Errors: a module that
// the graph does not have or that cannot carry what it is given.
absl::Status Attach(Graph& graph, const Attachments& attachments, const AdapterSource& source);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_ATTACHMENTS_H_
