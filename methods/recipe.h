// Recipe: a method that is a short list of other methods' steps.
#ifndef NIBBLE_METHODS_RECIPE_H_
#define NIBBLE_METHODS_RECIPE_H_

#include <memory>
#include <utility>

#include "core/base/status.h"
#include "methods/method.h"

namespace nibble {

class Recipe : public Method {
 public:
  // Checks every step's options.
  static absl::StatusOr<std::unique_ptr<Method>> Of(Pipeline pipeline) {
    for (const Step& step : pipeline.step()) NIBBLE_RETURN_IF_ERROR(MakeMethod(step).status());
    return std::unique_ptr<Method>(new Recipe(std::move(pipeline)));
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    return ApplyPipeline(context, pipeline_.step(), graph);
  }

 private:
  explicit Recipe(Pipeline pipeline) : pipeline_(std::move(pipeline)) {}
  const Pipeline pipeline_;
};

}  // namespace nibble

#endif  // NIBBLE_METHODS_RECIPE_H_
