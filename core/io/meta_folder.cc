#include "core/io/meta_folder.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_names.h"
#include "core/io/meta_names.h"
#include "core/io/quantized/codes.h"
#include "core/io/quantized/settings.h"
#include "core/io/rope_rows.h"
#include "core/io/strict_json.h"
#include "core/io/torch_file.h"
#include "core/quant/encoded.h"

namespace nibble::io {
namespace {

using nlohmann::json;

// Llama 3.2 stretches its slow frequencies 32 times, 3.1 8 times; params.json says
// which only in later releases. The 3.2 models are the text models of these widths.
constexpr double kRopeFactor32 = 32, kRopeFactor31 = 8;
constexpr int64_t kContext = 8192;  // of the quantized models

struct Params {
  LlamaConfig config;
  bool quantized = false, spinquant = false;
  int64_t group = 0;
  int64_t lora_rank = 0;
  double lora_scale = 0;
};

absl::Status ReadRope(const Settings& settings, LlamaConfig* config) {
  NIBBLE_ASSIGN_OR_RETURN(config->rope_theta, settings.Number("rope_theta", 10000));
  NIBBLE_ASSIGN_OR_RETURN(const bool scaled, settings.Bool("use_scaled_rope", false));
  if (!scaled) return absl::OkStatus();
  const bool small = config->hidden_size == 2048 || config->hidden_size == 3072;
  Llama3RopeScaling scaling{.factor = small ? kRopeFactor32 : kRopeFactor31};
  NIBBLE_ASSIGN_OR_RETURN(scaling.factor, settings.Number("rope_scale_factor", scaling.factor));
  NIBBLE_ASSIGN_OR_RETURN(scaling.factor, settings.Number("rope_scaling_factor", scaling.factor));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

absl::Status ReadQuantization(const Settings& settings, Params* params) {
  if (const json* args = settings.Find("quantization_args"); args != nullptr) {
    const Settings inner(*args, settings.where() + " quantization_args");
    NIBBLE_ASSIGN_OR_RETURN(const std::string scheme, inner.Text("scheme", ""));
    if (scheme != kMetaScheme) return absl::UnimplementedError(absl::StrCat(inner.where(), ": scheme '", scheme, "' is not supported, only ", kMetaScheme));
    NIBBLE_ASSIGN_OR_RETURN(params->group, inner.Integer("group_size", 0));
    if (params->group < 1) return inner.Bad("group_size", "a positive number");
    NIBBLE_ASSIGN_OR_RETURN(params->spinquant, inner.Bool("spinquant", false));
    params->quantized = true;
  }
  if (const json* args = settings.Find("lora_args"); args != nullptr) {
    const Settings inner(*args, settings.where() + " lora_args");
    NIBBLE_ASSIGN_OR_RETURN(params->lora_rank, inner.Integer("rank", 0));
    if (params->lora_rank < 1) return inner.Bad("rank", "a positive number");
    NIBBLE_ASSIGN_OR_RETURN(params->lora_scale, inner.Number("scale", 2.0));
  }
  return absl::OkStatus();
}

// The rows of a matrix, which decide a size that params.json need not give.
absl::StatusOr<int64_t> RowsOf(const TorchFile& file, const std::string& name) {
  NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, file.Get(name));
  if (tensor.shape().size() == 2) return tensor.dim(0);
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor '", name, "' is no matrix"));
}

absl::StatusOr<Params> ReadParams(const std::string& path, const TorchFile& file) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  NIBBLE_ASSIGN_OR_RETURN(const json object, ParseStrictObject(text, path));
  const Settings settings(object, path);
  Params params;
  LlamaConfig& config = params.config;
  for (const auto& [key, size] : {std::pair{"dim", &config.hidden_size}, {"n_layers", &config.num_hidden_layers}, {"n_heads", &config.num_attention_heads}}) {
    NIBBLE_ASSIGN_OR_RETURN(*size, settings.Integer(key, 0));
    if (*size < 1) return settings.Bad(key, "a positive number");
  }
  NIBBLE_ASSIGN_OR_RETURN(config.num_key_value_heads, settings.Integer("n_kv_heads", config.num_attention_heads));
  NIBBLE_ASSIGN_OR_RETURN(config.head_dim, settings.Integer("head_dim", config.hidden_size / config.num_attention_heads));
  NIBBLE_ASSIGN_OR_RETURN(config.rms_norm_eps, settings.Number("norm_eps", 1e-5));
  NIBBLE_RETURN_IF_ERROR(ReadQuantization(settings, &params));
  NIBBLE_RETURN_IF_ERROR(ReadRope(settings, &config));
  NIBBLE_ASSIGN_OR_RETURN(config.max_position_embeddings, settings.Integer("max_seq_len", kContext));
  NIBBLE_ASSIGN_OR_RETURN(config.vocab_size, RowsOf(file, "tok_embeddings.weight"));
  NIBBLE_ASSIGN_OR_RETURN(config.intermediate_size, RowsOf(file, "layers.0.feed_forward.w1.weight"));
  config.tie_word_embeddings = !file.Has("output.weight");
  NIBBLE_RETURN_IF_ERROR(Annotate(config.Validate(), path));
  return params;
}

class MetaStore : public WeightStore {
 public:
  MetaStore(std::shared_ptr<const TorchFile> file, const Params& params) : file_(std::move(file)), params_(params) {}

  bool Has(const std::string& name) const override {
    const MetaName meta = ToMeta(name, params_.config);
    return !meta.module.empty() && file_->Has(meta.module + meta.part);
  }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    const MetaName meta = ToMeta(name, params_.config);
    const std::string stored = meta.module + meta.part, where = absl::StrCat(file_->path(), ": tensor '", stored, "' (", name, ")");
    if (meta.module.empty()) return absl::NotFoundError(absl::StrCat(file_->path(), ": no tensor for '", name, "'"));
    NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, file_->Get(stored));
    const Shape& shape = tensor.shape();
    if (shape.empty() || shape.size() > 2 || tensor.elements() == 0 || (meta.interleaved > 0 && shape[0] != meta.interleaved * params_.config.head_dim)) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has shape ", ShapeToString(shape)));
    }
    auto loaded = tensor.dtype() == DType::kI8 ? LoadCodes(meta, tensor) : LoadFloats(meta, tensor);
    return loaded.ok() ? loaded : Annotate(loaded.status(), where);
  }

  // The modules of the blocks and the head that are quantized.
  bool IsQuantized(const std::string& module) const {
    const std::string name = MetaModule(module) + ".weight";
    return file_->Has(name) && file_->Get(name)->dtype() == DType::kI8;
  }

 private:
  // `tensor` with rows in Nibble's order.
  Tensor InOrder(const MetaName& meta, const Tensor& tensor) const {
    return meta.interleaved == 0 ? tensor : HalfSplitRows(tensor, params_.config.head_dim);
  }

  absl::StatusOr<EncodedTensor> LoadFloats(const MetaName& meta, const Tensor& tensor) const { return WrapFloats(InOrder(meta, tensor)); }

  absl::Status CheckZeros(const MetaName& meta) const {
    if (!file_->Has(meta.module + ".zeros")) return absl::OkStatus();
    NIBBLE_ASSIGN_OR_RETURN(const Tensor zeros, file_->Get(meta.module + ".zeros"));
    for (const uint8_t byte : zeros.bytes()) {
      if (byte != 0) return absl::UnimplementedError(absl::StrCat(meta.module, ".zeros are not all 0"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<EncodedTensor> LoadCodes(const MetaName& meta, const Tensor& stored) const {
    const bool table = meta.module == "tok_embeddings" || meta.module == "output";
    if (stored.shape().size() != 2 || !params_.quantized) return absl::InvalidArgumentError("is I8, but params.json has no quantization_args");
    Codes codes{table ? 8 : 4, stored.dim(0), stored.dim(1), table ? stored.dim(1) : params_.group};
    if (codes.cols % codes.group != 0) return absl::InvalidArgumentError(absl::StrCat("group_size ", codes.group, " does not divide the ", codes.cols, " inputs"));
    NIBBLE_RETURN_IF_ERROR(CheckZeros(meta));
    NIBBLE_ASSIGN_OR_RETURN(Tensor scales, file_->Get(meta.module + ".scales"));
    const Shape expected = {codes.rows, codes.cols / codes.group};
    if (expected[1] == 1 && scales.shape() == Shape{codes.rows}) {
      NIBBLE_ASSIGN_OR_RETURN(scales, Tensor::Borrow(scales.dtype(), expected, scales.bytes(), std::make_shared<Tensor>(scales)));
    }
    if (scales.shape() != expected) {
      return absl::InvalidArgumentError(absl::StrCat("its scales are ", ShapeToString(scales.shape()), ", expected ", ShapeToString(expected)));
    }
    NIBBLE_ASSIGN_OR_RETURN(codes.codes, UnsignedCodes(InOrder(meta, stored), codes.bits, "it"));
    codes.scales = InOrder(meta, scales);
    return ToIntegers(codes);
  }

  const std::shared_ptr<const TorchFile> file_;
  const Params params_;
};

// Inputs, adapters and rotations of every linear.
absl::Status ReadAttachments(const MetaStore& store, const Params& params, const std::string& folder, ir::Attachments* attachments) {
  const int64_t width = params.config.intermediate_size;
  if (params.spinquant && (width & (width - 1)) != 0) {
    return absl::UnimplementedError(absl::StrCat(folder, kParamsFile, ": spinquant with feed-forward width ", width,
                                                 ": Hadamard matrices of sizes that are no power of two are not unique"));
  }
  if (store.IsQuantized("lm_head")) attachments->activations["lm_head"] = MetaInput();
  for (int64_t layer = 0; layer < params.config.num_hidden_layers; ++layer) {
    for (const auto& [part, meta] : kMetaLayer) {
      if (absl::EndsWith(part, "layernorm")) continue;
      const std::string module = absl::StrCat("model.layers.", layer, ".", part);
      if (store.IsQuantized(module)) attachments->activations[module] = MetaInput();
      if (params.spinquant && part == "mlp.down_proj") attachments->rotations.push_back({module, width});
      if (!store.Has(module + ".lora_A.weight")) continue;
      if (params.lora_rank == 0) return absl::InvalidArgumentError(absl::StrCat(folder, kParamsFile, ": lora_args are missing, but there are adapters"));
      attachments->adapters.push_back({module, params.lora_rank, static_cast<float>(params.lora_scale)});
    }
  }
  return absl::OkStatus();
}

std::string Note(const Params& params) {
  std::string note = params.quantized ? absl::StrCat("Meta's ", params.spinquant ? "SpinQuant" : params.lora_rank > 0 ? "QLoRA" : "quantized", " checkpoint")
                                      : "Meta's checkpoint";
  if (params.config.rope_scaling.has_value()) absl::StrAppend(&note, ", RoPE factor ", params.config.rope_scaling->factor);
  return note;
}

}  // namespace

bool IsMetaFolder(const std::string& folder) { return !FileExists(folder + kConfigFile) && FileExists(folder + kParamsFile); }

absl::StatusOr<HfModel> ReadMetaFolder(const std::string& folder) {
  if (FileExists(folder + "/consolidated.01.pth")) {
    return absl::UnimplementedError(absl::StrCat(folder, ": a model in several consolidated files is not read"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const auto file, TorchFile::Open(folder + kPthFile));
  NIBBLE_ASSIGN_OR_RETURN(const Params params, ReadParams(folder + kParamsFile, *file));
  const auto store = std::make_shared<MetaStore>(file, params);
  HfModel model;
  model.config = params.config;
  model.files = {folder + kParamsFile, folder + kPthFile};
  NIBBLE_RETURN_IF_ERROR(ReadAttachments(*store, params, folder, &model.attachments));
  NIBBLE_RETURN_IF_ERROR(ReadFolderTokenizer(folder, &model));
  model.weights = store;
  model.note = Note(params);
  return model;
}

}  // namespace nibble::io
