// Low-rank adapters (LoRA: Hu et al., ICLR 2022): y = W x + scale B (A x), with
// A [rank, in] and B [out, rank]. In the IR an adapter is three ordinary ops
// beside its linear, so every executor and every gradient knows it already:
//
//   q_proj.lora_A    linear of what q_proj reads, before any activation scheme
//   q_proj.lora_B    linear of that
//   q_proj.lora_sum  q_proj + scale * lora_B
//
// Weights have the names of Hugging Face's PEFT, "...q_proj.lora_A.weight".
#ifndef NIBBLE_CORE_IR_ADAPTERS_H_
#define NIBBLE_CORE_IR_ADAPTERS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"

namespace nibble::ir {

struct Adapter {
  std::string module;  // of its linear
  int64_t rank = 0;
  float scale = 1;     // alpha / rank
};

// Gives the named linears adapters; `source` makes the source of each new
// parameter by name and shape. The ops follow the last linear that reads the
// same value, so that those linears stay together. Errors: a module that is no
// linear inside the blocks or has an adapter, a rank that is not positive.
using AdapterSource = std::function<Parameter::Source(const std::string& name, const Shape& shape)>;
absl::Status AttachAdapters(Graph& graph, const std::vector<Adapter>& adapters, const AdapterSource& source);

// Those that a graph has, in order.
std::vector<Adapter> AdaptersOf(const Graph& graph);

// W <- W + scale B A in fp64, encoded again under W's scheme, and the adapters
// gone. A quantized W is rounded anew: that is what merging costs.
absl::Status MergeAdapters(Graph& graph, ThreadPool& pool);

}  // namespace nibble::ir

#endif  // NIBBLE_CORE_IR_ADAPTERS_H_
