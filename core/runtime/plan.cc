#include "core/runtime/plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"

namespace nibble {

using ir::Op;
using ir::OpKind;
using ir::ValueId;

// Walks the ops once: chooses steps, assigns slots by liveness, packs weights.
class PlanBuilder {
 public:
  PlanBuilder(const ir::Graph& graph, const kernels::KernelTable& table) : graph_(graph), plan_(new Plan) { plan_->table_ = &table; }

  absl::StatusOr<std::unique_ptr<Plan>> Build() {
    NIBBLE_RETURN_IF_ERROR(ir::Verify(graph_));
    CountUses();
    for (size_t i = 0; i < graph_.ops().size(); ++i) {
      const Op& op = graph_.ops()[i];
      if (op.kind == OpKind::kLogits) {
        NIBBLE_RETURN_IF_ERROR(AddHead(op));
      } else if (IsSiluOfNextMul(i)) {
        AddSiluMul(op, graph_.ops()[++i]);
      } else if (op.kind == OpKind::kRotate) {
        NIBBLE_RETURN_IF_ERROR(AddRotation(op));
      } else {
        NIBBLE_RETURN_IF_ERROR(AddStep(op));
      }
    }
    FuseProducers();
    FindLateSlots();
    plan_->hidden_size_ = graph_.values()[graph_.head().inputs[0]].width;
    plan_->vocab_size_ = graph_.vocab_size();
    return std::move(plan_);
  }

 private:
  void CountUses() {
    uses_.assign(graph_.values().size(), 0);
    for (const Op& op : graph_.ops()) {
      for (const ValueId id : op.inputs) ++uses_[id];
    }
  }

  bool IsSiluOfNextMul(size_t i) const {
    const auto& ops = graph_.ops();
    return ops[i].kind == OpKind::kSilu && i + 1 < ops.size() && ops[i + 1].kind == OpKind::kMul && uses_[ops[i].output] == 1 &&
           ops[i + 1].inputs[0] == ops[i].output;
  }

  static PlanStep::Kind StepKind(OpKind kind) {
    switch (kind) {
      case OpKind::kEmbed: return PlanStep::Kind::kEmbed;
      case OpKind::kRmsNorm: return PlanStep::Kind::kRmsNorm;
      case OpKind::kRope: return PlanStep::Kind::kRope;
      case OpKind::kAttention: return PlanStep::Kind::kAttention;
      case OpKind::kSilu: return PlanStep::Kind::kSilu;
      case OpKind::kMul: return PlanStep::Kind::kMul;
      case OpKind::kAdd: return PlanStep::Kind::kAdd;
      case OpKind::kRotate: return PlanStep::Kind::kRotate;
      default: return PlanStep::Kind::kLinear;
    }
  }

  // An elementwise step may write where it reads.
  static bool Elementwise(PlanStep::Kind kind) {
    return kind == PlanStep::Kind::kRope || kind == PlanStep::Kind::kSilu || kind == PlanStep::Kind::kMul || kind == PlanStep::Kind::kSiluMul ||
           kind == PlanStep::Kind::kAdd || kind == PlanStep::Kind::kRotate;
  }

  void Release(ValueId id) {
    if (--uses_[id] == 0) free_slots_.emplace(graph_.values()[id].width, slots_.at(id));
  }

  int TakeSlot(ValueId id) {
    const int64_t width = graph_.values()[id].width;
    const auto it = free_slots_.find(width);
    int slot = static_cast<int>(plan_->slot_widths_.size());
    if (it != free_slots_.end()) {
      slot = it->second;
      free_slots_.erase(it);
    } else {
      plan_->slot_widths_.push_back(width);
    }
    slots_[id] = slot;
    return slot;
  }

  PlanStep& Place(PlanStep::Kind kind, const Op& op, const std::vector<ValueId>& inputs, ValueId output) {
    PlanStep step;
    step.kind = kind;
    step.op = op;
    for (const ValueId id : inputs) step.inputs.push_back(slots_.at(id));
    if (Elementwise(kind)) {
      for (const ValueId id : inputs) Release(id);
      step.output = TakeSlot(output);
    } else {
      step.output = TakeSlot(output);
      for (const ValueId id : inputs) Release(id);
    }
    plan_->steps_.push_back(std::move(step));
    return plan_->steps_.back();
  }

  void AddSiluMul(const Op& silu, const Op& mul) {
    // The product's first input is the silu's result, which is never stored.
    Place(PlanStep::Kind::kSiluMul, mul, {silu.inputs[0], mul.inputs[1]}, mul.output);
  }

  // A rotation of what a SwiGLU or RoPE gives to it alone is part of that step.
  absl::Status AddRotation(const Op& op) {
    PlanStep* step = StepThatGives(op.inputs[0]);
    const bool joins = step != nullptr && uses_[op.inputs[0]] == 1 && step->rotation == nullptr &&
                       (step->kind == PlanStep::Kind::kSiluMul || step->kind == PlanStep::Kind::kRope);
    if (joins) {
      step->op.output = op.output;
      slots_[op.output] = step->output;
    } else {
      step = &Place(PlanStep::Kind::kRotate, op, op.inputs, op.output);
    }
    NIBBLE_ASSIGN_OR_RETURN(step->rotation, RotationOf(op.block));
    return absl::OkStatus();
  }

  PlanStep* StepThatGives(ValueId id) {
    for (auto step = plan_->steps_.rbegin(); step != plan_->steps_.rend(); ++step) {
      if (step->op.output == id) return &*step;
    }
    return nullptr;
  }

  absl::StatusOr<std::shared_ptr<const Hadamard>> RotationOf(int64_t block) {
    std::shared_ptr<const Hadamard>& rotation = rotations_[block];
    if (rotation == nullptr) {
      NIBBLE_ASSIGN_OR_RETURN(Hadamard made, Hadamard::Create(block));
      rotation = std::make_shared<const Hadamard>(std::move(made));
    }
    return rotation;
  }

  absl::Status AddStep(const Op& op) {
    PlanStep& step = Place(StepKind(op.kind), op, op.inputs, op.output);
    switch (op.kind) {
      case OpKind::kEmbed: {
        NIBBLE_ASSIGN_OR_RETURN(plan_->embedding_, graph_.parameter(*op.weight).Load());
        plan_->weight_bytes_ += plan_->embedding_.byte_size();
        return absl::OkStatus();
      }
      case OpKind::kRmsNorm: {
        NIBBLE_ASSIGN_OR_RETURN(std::vector<float> gain, graph_.parameter(*op.weight).LoadFloats());
        step.gain = static_cast<int>(plan_->gains_.size());
        plan_->weight_bytes_ += static_cast<int64_t>(gain.size() * sizeof(float));
        plan_->gains_.push_back(std::move(gain));
        return absl::OkStatus();
      }
      case OpKind::kLinear: {
        NIBBLE_ASSIGN_OR_RETURN(auto linear, Pack(op));
        step.linear = static_cast<int>(plan_->linears_.size());
        plan_->linears_.push_back(std::move(linear));
        return absl::OkStatus();
      }
      case OpKind::kAttention:
        step.cache = static_cast<int>(plan_->attentions_.size());
        plan_->attentions_.push_back(op);
        return absl::OkStatus();
      default:
        return absl::OkStatus();
    }
  }

  // The readers of a fused step follow it directly, so that what it reads is
  // still there when they prepare their input.
  void FuseProducers() {
    CountUses();
    std::vector<PlanStep>& steps = plan_->steps_;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].kind != PlanStep::Kind::kRmsNorm && steps[i].kind != PlanStep::Kind::kSiluMul) continue;
      const size_t readers = uses_[steps[i].op.output];
      bool fuse = readers > 0;
      for (size_t j = i + 1; j <= i + readers && fuse; ++j) fuse = j < steps.size() && SharesPreparedInput(steps[i + 1], steps[j], steps[i]);
      steps[i].fused = fuse;
      for (size_t j = i + 1; j <= i + readers && fuse; ++j) steps[j].producer = static_cast<int>(i);
    }
  }

  bool SharesPreparedInput(const PlanStep& first, const PlanStep& step, const PlanStep& producer) const {
    if (first.linear < 0 || step.linear < 0 || step.op.inputs[0] != producer.op.output) return false;
    const kernels::InputForm& form = plan_->linears_[step.linear]->input_form();
    return kernels::PreparedInput::TakesRows(form) && form == plan_->linears_[first.linear]->input_form();
  }

  void FindLateSlots() {
    const std::vector<PlanStep>& steps = plan_->steps_;
    const auto last = std::find_if(steps.rbegin(), steps.rend(), [](const PlanStep& step) { return step.kind == PlanStep::Kind::kAttention; });
    plan_->last_attention_ = last == steps.rend() ? steps.size() : static_cast<size_t>(steps.rend() - last) - 1;
    std::set<int> made, late;
    for (size_t i = plan_->last_attention_; i < steps.size(); ++i) {
      const size_t reads = i == plan_->last_attention_ ? 1 : steps[i].inputs.size();  // keys and values go to the cache
      for (size_t k = 0; k < reads; ++k) {
        if (made.count(steps[i].inputs[k]) == 0) late.insert(steps[i].inputs[k]);
      }
      made.insert(steps[i].output);
    }
    plan_->late_slots_.assign(late.begin(), late.end());
  }

  absl::Status AddHead(const Op& op) {
    plan_->final_slot_ = slots_.at(op.inputs[0]);
    NIBBLE_ASSIGN_OR_RETURN(plan_->head_, Pack(op));
    // A head that borrows the embedding's own floats takes no bytes of its own.
    if (graph_.tied() && IsFloatFormat(plan_->embedding_.scheme)) plan_->weight_bytes_ -= plan_->head_->weight_bytes();
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<kernels::Linear>> Pack(const Op& op) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor weight, graph_.parameter(*op.weight).Load());
    auto linear = kernels::Linear::Create(weight, op.activation, *plan_->table_);
    if (!linear.ok()) return Annotate(linear.status(), op.name);
    // Codes and scales were copied into kernel order; floats are borrowed.
    if (!IsFloatFormat(weight.scheme) && (*linear)->arithmetic() == kernels::Arithmetic::kNative) DropMappedPages(weight);
    if ((*linear)->arithmetic() == kernels::Arithmetic::kSimulated) plan_->simulated_.push_back(op.name);
    plan_->weight_bytes_ += (*linear)->weight_bytes();
    return linear;
  }

  const ir::Graph& graph_;
  std::unique_ptr<Plan> plan_;
  std::vector<int> uses_;
  std::map<ValueId, int> slots_;
  std::multimap<int64_t, int> free_slots_;
  std::map<int64_t, std::shared_ptr<const Hadamard>> rotations_;  // by block
};

absl::StatusOr<std::unique_ptr<Plan>> Plan::Create(const ir::Graph& graph, const kernels::KernelTable& table) {
  return PlanBuilder(graph, table).Build();
}

}  // namespace nibble
