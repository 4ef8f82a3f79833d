// llm_int8: int8 products beside a floating-point product of activation outliers
// (Dettmers et al., LLM.int8(), NeurIPS 2022, section 3.2).

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "methods/encode_ops.h"
#include "methods/llm_int8/llm_int8.pb.h"
#include "methods/method.h"
#include "methods/options.h"

namespace nibble {
namespace {

class LlmInt8Method : public Method {
 public:
  explicit LlmInt8Method(const LlmInt8Options& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const LlmInt8Options& options) {
    if (options.threshold() >= 0 && std::isfinite(options.threshold())) return std::make_unique<LlmInt8Method>(options);
    return absl::InvalidArgumentError(absl::StrCat("threshold: ", options.threshold(), " must be 0 or more"));
  }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    const std::vector<std::string> layers = LayersOrBlocks(options_.layers());
    NIBBLE_RETURN_IF_ERROR(EncodeOps(context, graph, layers, IntegerScheme(8, 0, false)));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> ops, ir::SelectOps(graph, layers));
    return ir::AttachActivation(graph, ops, OutlierScheme(options_.threshold(), options_.outliers() == LlmInt8Options::COLUMNS));
  }

 private:
  const LlmInt8Options options_;
};

const MethodRegistrar<LlmInt8Method> kRegistrar(llm_int8);

}  // namespace
}  // namespace nibble
