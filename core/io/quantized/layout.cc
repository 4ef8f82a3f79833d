#include "core/io/quantized/layout.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/io/quantized/settings.h"
#include "core/quant/format.h"

namespace nibble::io {
namespace {

struct Method {
  const char* name;
  absl::StatusOr<QuantizedLayout> (*open)(const nlohmann::json&, std::shared_ptr<const TensorFiles>);
};
constexpr Method kMethods[] = {{"gptq", OpenGptq},
                               {"awq", OpenAwq},
                               {"bitsandbytes", OpenBitsAndBytes},
                               {"compressed-tensors", OpenCompressedTensors},
                               {"torchao", OpenTorchAo}};

}  // namespace

absl::StatusOr<QuantizedLayout> OpenQuantizedLayout(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files) {
  const Settings settings(config);
  NIBBLE_ASSIGN_OR_RETURN(const std::string name, settings.Text("quant_method", ""));
  std::vector<std::string> known;
  for (const Method& method : kMethods) {
    known.push_back(method.name);
    if (name != method.name) continue;
    NIBBLE_ASSIGN_OR_RETURN(QuantizedLayout layout, method.open(config, files));
    if (layout.weights.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("quantization_config says ", name, ", but no weight is quantized that way"));
    }
    for (const auto& [module, load] : layout.weights) NIBBLE_RETURN_IF_ERROR(files->RefuseBias(module));
    return layout;
  }
  return absl::UnimplementedError(absl::StrCat("quantization_config: quant_method '", name, "' is not supported; Nibble reads ",
                                               absl::StrJoin(known, ", ")));
}

}  // namespace nibble::io
