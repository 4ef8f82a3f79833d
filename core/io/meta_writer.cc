#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_files.h"
#include "core/io/checkpoint_names.h"
#include "core/io/meta_folder.h"
#include "core/io/meta_names.h"
#include "core/io/quantized/codes.h"
#include "core/io/rope_rows.h"
#include "core/io/torch_file.h"
#include "core/quant/format.h"
#include "nlohmann/json.hpp"

namespace nibble::io {
namespace {

using nlohmann::ordered_json;

template <typename... Parts>
absl::Status Cannot(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("Meta's layout cannot hold this model: ", parts...));
}

// What holds for all quantized parameters.
struct Common {
  int64_t group = 0;
  int64_t quantized = 0, linears = 0;
};

bool IsTable(const std::string& name) { return name == "model.embed_tokens.weight" || name == "lm_head.weight"; }

absl::Status CheckParameter(const CheckpointParameter& parameter, const LlamaConfig& config, Common* common) {
  if (ToMeta(parameter.name, config).module.empty()) return Cannot(parameter.name, " has no name there");
  if (IsFloatFormat(parameter.scheme)) return absl::OkStatus();
  const QuantScheme& scheme = parameter.scheme;
  const std::string what = absl::StrCat(parameter.name, " is ", SchemeToString(scheme));
  if (IsTable(parameter.name)) {
    if (scheme.format() == "int8" && !scheme.asymmetric() && scheme.per() == QuantScheme::PER_ROW) return absl::OkStatus();
    return Cannot(what, ", expected symmetric int8 with a scale a row");
  }
  if (scheme.format() != "int4" || scheme.asymmetric() || scheme.per() != QuantScheme::PER_GROUP || absl::StrContains(parameter.name, ".lora_")) {
    return Cannot(what, ", expected symmetric int4 in groups");
  }
  if (common->group != 0 && common->group != scheme.group_size()) return Cannot(what, ", others are in groups of ", common->group);
  common->group = scheme.group_size();
  if (parameter.shape.back() % common->group != 0) return Cannot(what, ", which does not divide its ", parameter.shape.back(), " columns");
  ++common->quantized;
  return absl::OkStatus();
}

absl::Status CheckParameters(const Checkpoint& checkpoint, Common* common) {
  common->linears = 7 * checkpoint.config.num_hidden_layers;
  int64_t tables = 0;
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_RETURN_IF_ERROR(CheckParameter(parameter, checkpoint.config, common));
    tables += IsTable(parameter.name) && !IsFloatFormat(parameter.scheme);
  }
  const int64_t all_tables = checkpoint.config.tie_word_embeddings ? 1 : 2;
  if (common->quantized == 0 && tables == 0) return absl::OkStatus();
  if (common->quantized == common->linears && tables == all_tables) return absl::OkStatus();
  return Cannot(common->quantized, " of ", common->linears, " linears of the blocks and ", tables, " of ", all_tables,
                " tables are quantized, expected all or none");
}

absl::Status CheckInputs(const Checkpoint& checkpoint, const Common& common) {
  const auto& inputs = checkpoint.attachments.activations;
  for (const auto& [module, stored] : inputs) {
    QuantScheme scheme = stored;
    scheme.clear_scale_floor();
    if (common.quantized == 0 || !SameScheme(scheme, MetaInput())) {
      return Cannot("the input of ", module, " is ", SchemeToString(stored), ", expected ", common.quantized == 0 ? "floats" : SchemeToString(MetaInput()));
    }
  }
  if (common.quantized == 0 || static_cast<int64_t>(inputs.size()) == common.linears + 1) return absl::OkStatus();
  return Cannot("its runtimes quantize the inputs of all linears of the blocks and of the head, here ", inputs.size(), " of ", common.linears + 1,
                "; add a step [nibble.activations] { layers: \"blocks\" layers: \"head\" }");
}

absl::Status CheckAdapters(const Checkpoint& checkpoint, const Common& common) {
  const std::vector<ir::Adapter>& adapters = checkpoint.attachments.adapters;
  for (const ir::Adapter& adapter : adapters) {
    if (adapter.rank != adapters[0].rank || adapter.scale != adapters[0].scale) return Cannot("adapters of several ranks or scales");
  }
  if (adapters.empty() || static_cast<int64_t>(adapters.size()) == common.linears) return absl::OkStatus();
  return Cannot("adapters on ", adapters.size(), " of ", common.linears, " linears of the blocks, expected all or none");
}

absl::Status CheckRotations(const Checkpoint& checkpoint) {
  const auto& rotations = checkpoint.attachments.rotations;
  const int64_t width = checkpoint.config.intermediate_size;
  for (const ir::OnlineRotation& rotation : rotations) {
    if (!absl::EndsWith(rotation.module, ".mlp.down_proj") || rotation.block != width || (width & (width - 1)) != 0) {
      return Cannot("a transform of ", rotation.module, " in blocks of ", rotation.block, ", expected down_proj over its whole width, a power of two");
    }
  }
  if (rotations.empty() || static_cast<int64_t>(rotations.size()) == checkpoint.config.num_hidden_layers) return absl::OkStatus();
  return Cannot("transforms in ", rotations.size(), " layers, expected all or none");
}

absl::Status CheckConfig(const Checkpoint& checkpoint) {
  const LlamaConfig& config = checkpoint.config;
  if (config.sliding_window.has_value()) return Cannot("sliding_window");
  if (config.rope_linear_factor != 1) return Cannot("rope_type linear");
  if (!checkpoint.attachments.caches.empty()) return Cannot("a quantized KV cache");
  if (!config.rope_scaling.has_value()) return absl::OkStatus();
  const Llama3RopeScaling& s = *config.rope_scaling;
  if (s.low_freq_factor == 1 && s.high_freq_factor == 4 && s.original_max_position_embeddings == 8192) return absl::OkStatus();
  return Cannot("RoPE scaling that is not Llama 3's 1, 4, 8192");
}

// The multiplier with which Meta's formula gives the feed-forward width: int(2 / 3 4
// dim), times it, rounded down and then up to a multiple.
ordered_json Params(const Checkpoint& checkpoint, const Common& common) {
  const LlamaConfig& c = checkpoint.config;
  int64_t multiple = 1;
  while (multiple < 256 && c.intermediate_size % (2 * multiple) == 0) multiple *= 2;
  const int64_t plain = 8 * c.hidden_size / 3;
  ordered_json params = {{"dim", c.hidden_size},
                         {"n_layers", c.num_hidden_layers},
                         {"n_heads", c.num_attention_heads},
                         {"n_kv_heads", c.num_key_value_heads},
                         {"vocab_size", c.vocab_size},
                         {"ffn_dim_multiplier", (static_cast<double>(c.intermediate_size) - (multiple > 1 ? 0.5 : -0.5)) / static_cast<double>(plain)},
                         {"multiple_of", multiple},
                         {"norm_eps", c.rms_norm_eps},
                         {"rope_theta", c.rope_theta},
                         {"use_scaled_rope", c.rope_scaling.has_value()}};
  if (c.head_dim * c.num_attention_heads != c.hidden_size) params["head_dim"] = c.head_dim;
  if (c.rope_scaling.has_value()) params["rope_scale_factor"] = c.rope_scaling->factor;
  if (common.quantized > 0) {
    params["quantization_args"] = {{"scheme", kMetaScheme}, {"group_size", common.group}, {"spinquant", !checkpoint.attachments.rotations.empty()}};
  }
  const auto& adapters = checkpoint.attachments.adapters;
  if (!adapters.empty()) params["lora_args"] = {{"rank", adapters[0].rank}, {"scale", adapters[0].scale}};
  return params;
}

// A parameter under one of its names there: a tied table has two.
struct Stored {
  const CheckpointParameter* parameter;
  MetaName name;
};

std::vector<Stored> AllStored(const Checkpoint& checkpoint) {
  std::vector<Stored> all;
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    all.push_back({&parameter, ToMeta(parameter.name, checkpoint.config)});
    if (checkpoint.config.tie_word_embeddings && IsTable(parameter.name)) all.push_back({&parameter, ToMeta("lm_head.weight", checkpoint.config)});
  }
  return all;
}

absl::StatusOr<std::vector<TensorSpec>> Specs(const std::vector<Stored>& all) {
  std::vector<TensorSpec> specs;
  for (const Stored& stored : all) {
    const CheckpointParameter& parameter = *stored.parameter;
    NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(parameter.scheme.format()));
    const std::vector<BufferSpec> layout = format->Layout(parameter.scheme, parameter.shape);
    const bool floats = IsFloatFormat(parameter.scheme);
    specs.push_back({stored.name.module + stored.name.part, floats ? layout[0].dtype : DType::kI8, parameter.shape});
    if (!floats) specs.push_back({stored.name.module + ".scales", layout[1].dtype, layout[1].shape});
  }
  return specs;
}

// Rows in Meta's order.
Tensor InMetaOrder(const Stored& stored, int64_t head_dim, const Tensor& tensor) {
  return stored.name.interleaved == 0 ? tensor : InterleavedRows(tensor, head_dim);
}

absl::Status WriteOne(const Stored& stored, int64_t head_dim, const EncodedTensor& tensor, TorchWriter* writer) {
  NIBBLE_RETURN_IF_ERROR(CheckAnnounced(*stored.parameter, tensor));
  const std::string name = stored.name.module + stored.name.part;
  if (IsFloatFormat(tensor.scheme)) return writer->Write(name, InMetaOrder(stored, head_dim, tensor.buffer("values")));
  NIBBLE_ASSIGN_OR_RETURN(const CodeView codes, AsIntegers(tensor));
  NIBBLE_RETURN_IF_ERROR(writer->Write(name, InMetaOrder(stored, head_dim, SignedCodes(codes))));
  return writer->Write(stored.name.module + ".scales", InMetaOrder(stored, head_dim, tensor.buffer("scales")));
}

absl::Status WriteWeights(const std::string& path, const Checkpoint& checkpoint) {
  const std::vector<Stored> all = AllStored(checkpoint);
  NIBBLE_ASSIGN_OR_RETURN(std::vector<TensorSpec> specs, Specs(all));
  NIBBLE_ASSIGN_OR_RETURN(const auto writer, TorchWriter::Create(path, std::move(specs)));
  for (const Stored& stored : all) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, checkpoint.load(stored.parameter->name));
    NIBBLE_RETURN_IF_ERROR(WriteOne(stored, checkpoint.config.head_dim, tensor, writer.get()));
  }
  return writer->Finish();
}

}  // namespace

absl::Status WriteMetaFolder(const std::string& folder, const Checkpoint& checkpoint) {
  NIBBLE_RETURN_IF_ERROR(checkpoint.config.Validate());
  NIBBLE_RETURN_IF_ERROR(CheckConfig(checkpoint));
  Common common;
  NIBBLE_RETURN_IF_ERROR(CheckParameters(checkpoint, &common));
  NIBBLE_RETURN_IF_ERROR(CheckInputs(checkpoint, common));
  NIBBLE_RETURN_IF_ERROR(CheckAdapters(checkpoint, common));
  NIBBLE_RETURN_IF_ERROR(CheckRotations(checkpoint));
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
  if (FileExists(folder + kConfigFile)) return absl::InvalidArgumentError(absl::StrCat(folder, " holds another model, with a config.json; give another --out"));
  NIBBLE_RETURN_IF_ERROR(WriteOrRemoveFile(folder + kParamsFile, ""));
  NIBBLE_RETURN_IF_ERROR(WriteWeights(folder + kPthFile, checkpoint));
  NIBBLE_RETURN_IF_ERROR(WriteTokenizerFiles(folder, checkpoint));
  return WriteFile(folder + kParamsFile, Params(checkpoint, common).dump(2) + "\n");
}

}  // namespace nibble::io
