// Plan: a graph compiled for this machine. Weights are packed for the kernels,
// values get slots of one arena by their lifetimes, silu and mul become one
// step, a rotation joins the step before it, norms and SwiGLU join the
// quantization of what they give. A plan is immutable and shared by sessions.
#ifndef NIBBLE_CORE_RUNTIME_PLAN_H_
#define NIBBLE_CORE_RUNTIME_PLAN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/kernels/kernel_table.h"
#include "core/kernels/linear.h"
#include "core/tensor/hadamard.h"

namespace nibble {

// One thing to do; `op` keeps the attributes.
struct PlanStep {
  enum class Kind { kEmbed, kRmsNorm, kLinear, kRope, kAttention, kSilu, kMul, kSiluMul, kAdd, kRotate };
  Kind kind;
  ir::Op op;
  std::vector<int> inputs;  // slots
  int output = -1;          // slot
  int linear = -1;          // index of linears()
  int gain = -1;            // index of gains()
  int cache = -1;           // attention: index of its KV cache
  // Hadamard transform of each block of what the step gives; null for none. A
  // rotate step copies its input and does nothing else.
  std::shared_ptr<const Hadamard> rotation;
  // A norm or SwiGLU whose readers are all linears that share one quantized
  // or rounded input is `fused`: nothing runs or is stored for it, and its readers name it
  // as `producer` of their rows.
  bool fused = false;
  int producer = -1;        // index of steps()
};

class Plan {
 public:
  // Loads and packs every parameter. Errors name the parameter or op.
  static absl::StatusOr<std::unique_ptr<Plan>> Create(const ir::Graph& graph, const kernels::KernelTable& table);

  const kernels::KernelTable& table() const { return *table_; }
  const std::vector<PlanStep>& steps() const { return steps_; }
  const std::vector<std::unique_ptr<kernels::Linear>>& linears() const { return linears_; }
  const std::vector<std::vector<float>>& gains() const { return gains_; }
  const EncodedTensor& embedding() const { return embedding_; }
  const kernels::Linear& head() const { return *head_; }
  int final_slot() const { return final_slot_; }
  // Width of each arena slot, in floats per token.
  const std::vector<int64_t>& slot_widths() const { return slot_widths_; }
  // Attention ops, in cache order.
  const std::vector<ir::Op>& attentions() const { return attentions_; }
  // Index of the last attention in steps(), their number where there is none. A token whose
  // hidden state nobody wants may leave there, once its keys and values are stored.
  size_t last_attention() const { return last_attention_; }
  // Slots that the last attention or a step after it reads and a step before it made: the rows
  // that must stay together when tokens leave.
  const std::vector<int>& late_slots() const { return late_slots_; }

  int64_t hidden_size() const { return hidden_size_; }
  int64_t vocab_size() const { return vocab_size_; }

  // SIMULATED when any linear is; simulated_ops() names them.
  kernels::Arithmetic arithmetic() const {
    return simulated_.empty() ? kernels::Arithmetic::kNative : kernels::Arithmetic::kSimulated;
  }
  const std::vector<std::string>& simulated_ops() const { return simulated_; }

  // Bytes held for weights: packed linears, embedding table, gains.
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  friend class PlanBuilder;
  const kernels::KernelTable* table_ = nullptr;
  std::vector<PlanStep> steps_;
  std::vector<std::unique_ptr<kernels::Linear>> linears_;
  std::vector<std::vector<float>> gains_;
  EncodedTensor embedding_;
  std::unique_ptr<kernels::Linear> head_;
  std::vector<int64_t> slot_widths_;
  std::vector<ir::Op> attentions_;
  size_t last_attention_ = 0;
  std::vector<int> late_slots_;
  std::vector<std::string> simulated_;
  int final_slot_ = -1;
  int64_t hidden_size_ = 0, vocab_size_ = 0, weight_bytes_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_RUNTIME_PLAN_H_
