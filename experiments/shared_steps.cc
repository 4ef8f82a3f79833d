#include "experiments/shared_steps.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/proto.h"
#include "core/base/status.h"

namespace nibble {

SharedSteps::SharedSteps(const std::vector<const Pipeline*>& pipelines) : pipelines_(pipelines) {
  for (const Pipeline* pipeline : pipelines_) {
    std::vector<std::string>& beginnings = beginnings_.emplace_back();
    for (const Step& step : pipeline->step()) {
      beginnings.push_back(absl::StrCat(beginnings.empty() ? "" : beginnings.back(), ProtoToLine(step), "\n"));
    }
  }
}

bool SharedSteps::IsWanted(const std::string& steps, size_t index) const {
  return std::any_of(beginnings_.begin() + index + 1, beginnings_.end(), [&](const std::vector<std::string>& beginnings) {
    return std::find(beginnings.begin(), beginnings.end(), steps) != beginnings.end();
  });
}

int SharedSteps::TakeUp(size_t index, Context& context, ir::Graph& graph) const {
  const std::vector<std::string>& beginnings = beginnings_[index];
  for (int done = static_cast<int>(beginnings.size()); done > 0; --done) {
    const auto found = kept_.find(beginnings[done - 1]);
    if (found == kept_.end()) continue;
    graph = found->second.graph;
    BuildRecord record = found->second.record;
    for (LossCurve& curve : record.curves) curve.reused = true;
    context.TakeUp(std::move(record));
    return done;
  }
  return 0;
}

absl::Status SharedSteps::Apply(size_t index, Context& context, ir::Graph& graph) {
  const auto& steps = pipelines_[index]->step();
  for (int i = TakeUp(index, context, graph); i < steps.size(); ++i) {
    NIBBLE_ASSIGN_OR_RETURN(const bool learns, ApplyStep(context, steps[i], i, graph));
    const std::string& made = beginnings_[index][i];
    if (learns && IsWanted(made, index)) kept_.insert_or_assign(made, Kept{graph, context.record()});
  }
  return absl::OkStatus();
}

void SharedSteps::Forget(size_t index) {
  for (auto kept = kept_.begin(); kept != kept_.end();) {
    if (IsWanted(kept->first, index)) ++kept;
    else kept = kept_.erase(kept);
  }
}

}  // namespace nibble
