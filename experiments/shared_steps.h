// SharedSteps: variants that begin with the same steps. What such a beginning
// made is kept in memory when its last step learns or calibrates, until the last
// variant that begins so is built, and taken up there.
#ifndef NIBBLE_EXPERIMENTS_SHARED_STEPS_H_
#define NIBBLE_EXPERIMENTS_SHARED_STEPS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "methods/method.h"

namespace nibble {

class SharedSteps {
 public:
  // `pipelines` in the order in which they will be built.
  explicit SharedSteps(const std::vector<const Pipeline*>& pipelines);

  // Applies pipeline `index` to `graph`, an unchanged model.
  absl::Status Apply(size_t index, Context& context, ir::Graph& graph);

  // Pipeline `index` and those before it will not be built any more.
  void Forget(size_t index);

  size_t kept() const { return kept_.size(); }

 private:
  struct Kept {
    ir::Graph graph;
    BuildRecord record;
  };

  // Whether a pipeline after `index` begins with `steps`.
  bool IsWanted(const std::string& steps, size_t index) const;
  // How many steps of a pipeline are there already; takes them up.
  int TakeUp(size_t index, Context& context, ir::Graph& graph) const;

  const std::vector<const Pipeline*> pipelines_;
  std::vector<std::vector<std::string>> beginnings_;  // of each pipeline: its first 1, 2 ... steps as text
  std::map<std::string, Kept> kept_;                  // by their steps as text
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SHARED_STEPS_H_
