// Hugging Face folders that another library quantized: config.json has a
// "quantization_config", and a linear's weight is several tensors in that
// library's layout. A layout is one file here that says which modules are
// quantized and turns each into an EncodedTensor of Nibble's own formats, codes
// and scales as they are. What no scheme can say exactly is decoded to the
// scales' float type, and said in the note, or refused.
#ifndef NIBBLE_CORE_IO_QUANTIZED_LAYOUT_H_
#define NIBBLE_CORE_IO_QUANTIZED_LAYOUT_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/io/tensor_files.h"
#include "core/quant/encoded.h"
#include "nlohmann/json.hpp"

namespace nibble::io {

struct QuantizedLayout {
  // How to load the weight of a quantized module, by module name
  // ("model.layers.0.mlp.up_proj"). Shapes, types and companions were checked when
  // the folder was opened; tensors are read when asked for.
  std::map<std::string, std::function<absl::StatusOr<EncodedTensor>()>> weights;

  // Schemes of what modules read.
  std::map<std::string, QuantScheme> activations;

  // What a report should say about the source: its layout, and what was decoded
  // or left out.
  std::string note;
};

// `config` is the quantization_config, `files` every tensor of the folder. Errors:
// a quant_method that is not known (the message names it and the known ones), a
// setting that is not supported, a tensor that is missing or of a wrong type or
// shape, a bias that is not zero.
absl::StatusOr<QuantizedLayout> OpenQuantizedLayout(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);

// The layouts, one for each quant_method.
absl::StatusOr<QuantizedLayout> OpenGptq(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);
absl::StatusOr<QuantizedLayout> OpenAwq(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);
absl::StatusOr<QuantizedLayout> OpenBitsAndBytes(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);
absl::StatusOr<QuantizedLayout> OpenCompressedTensors(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);
absl::StatusOr<QuantizedLayout> OpenTorchAo(const nlohmann::json& config, std::shared_ptr<const TensorFiles> files);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_QUANTIZED_LAYOUT_H_
