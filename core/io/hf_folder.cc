#include "core/io/hf_folder.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/checkpoint_names.h"
#include "core/io/quantized/layout.h"
#include "core/io/safetensors.h"
#include "core/io/scheme_text.h"
#include "core/io/strict_json.h"
#include "core/io/tensor_files.h"
#include "core/quant/format.h"
#include "core/text/hf_json.h"
#include "core/text/sentencepiece_model.h"
#include "core/text/tiktoken.h"

namespace nibble::io {
namespace {

using nlohmann::json;
using FilePtr = std::shared_ptr<const SafetensorsFile>;

absl::StatusOr<json> ReadObject(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseStrictObject(text, path);
}

absl::Status CheckShape(const Shape& shape) {
  bool positive = true;
  for (const int64_t dim : shape) positive = positive && dim > 0;
  if (positive && (shape.size() == 1 || shape.size() == 2)) return CheckedElements(shape).status();
  return absl::InvalidArgumentError(absl::StrCat("has shape ", ShapeToString(shape), ", expected one or two positive dimensions"));
}

// How a parameter is encoded and where.
struct Encoding {
  FilePtr file;
  QuantScheme scheme;
  Shape shape;
};

absl::StatusOr<Encoding> ReadEncoding(const json& entry) {
  const auto scheme = entry.is_object() ? entry.find("scheme") : entry.end();
  const auto shape = entry.is_object() ? entry.find("shape") : entry.end();
  if (!entry.is_object() || scheme == entry.end() || !scheme->is_string() || shape == entry.end() || !shape->is_array()) {
    return absl::InvalidArgumentError("expected {\"scheme\": text, \"shape\": [rows, cols]}");
  }
  Encoding encoding;
  NIBBLE_ASSIGN_OR_RETURN(encoding.scheme, SchemeFromText(scheme->get_ref<const std::string&>()));
  for (const json& dim : *shape) {
    if (!dim.is_number_unsigned()) return absl::InvalidArgumentError(absl::StrCat("shape ", shape->dump(), " is no list of sizes"));
    encoding.shape.push_back(static_cast<int64_t>(dim.get<uint64_t>()));
  }
  NIBBLE_RETURN_IF_ERROR(CheckShape(encoding.shape));
  return encoding;
}

class HfStore : public WeightStore {
 public:
  // One file that holds everything.
  absl::Status AddFile(const std::string& path) {
    NIBBLE_ASSIGN_OR_RETURN(const FilePtr file, OpenFile(path));
    for (const std::string& name : file->names()) tensors_->Add(name, file);
    return absl::OkStatus();
  }

  // Shards, and which one holds a tensor.
  absl::Status AddShards(const std::string& folder, const std::string& index_path, std::vector<std::string>* paths) {
    NIBBLE_ASSIGN_OR_RETURN(const json index, ReadObject(index_path));
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map is missing"));
    }
    std::map<std::string, FilePtr> shards;
    for (const auto& [name, shard] : map->items()) {
      const std::string file_name = shard.is_string() ? shard.get<std::string>() : "";
      if (file_name.empty() || file_name[0] == '.' || file_name.find('/') != std::string::npos) {
        return absl::InvalidArgumentError(absl::StrCat(index_path, ": tensor '", name, "' is in ", shard.dump(),
                                                       ", expected the name of a file in the same folder"));
      }
      FilePtr& file = shards[file_name];
      if (file == nullptr) {
        paths->push_back(absl::StrCat(folder, "/", file_name));
        NIBBLE_ASSIGN_OR_RETURN(file, OpenFile(paths->back()));
      }
      tensors_->Add(name, file);
    }
    return absl::OkStatus();
  }

  // Reads weights that another library quantized; `config` is config.json's
  // quantization_config.
  absl::Status OpenLayout(const json& config) {
    NIBBLE_ASSIGN_OR_RETURN(layout_, OpenQuantizedLayout(config, tensors_));
    return absl::OkStatus();
  }
  const QuantizedLayout& layout() const { return layout_; }

  // An error where a tensor of a decoder block belongs to no module of a Llama, or a module
  // has a bias: without them the model would be another.
  absl::Status RefuseForeign(int64_t layers) const {
    static constexpr absl::string_view kModules[] = {"self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.", "self_attn.o_proj.", "self_attn.rotary_emb.",
                                                     "mlp.gate_proj.", "mlp.up_proj.", "mlp.down_proj.", "input_layernorm.", "post_attention_layernorm.",
                                                     // Of a KV cache's scheme, which is noted.
                                                     "self_attn.k_scale", "self_attn.v_scale", "self_attn.k_zero_point", "self_attn.v_zero_point"};
    for (const std::string& name : tensors_->names()) {
      absl::string_view rest = name;
      if (!absl::ConsumePrefix(&rest, "model.layers.")) continue;
      int64_t layer = -1;
      const size_t dot = rest.find('.');
      const bool numbered = dot != absl::string_view::npos && absl::SimpleAtoi(rest.substr(0, dot), &layer);
      rest.remove_prefix(numbered ? dot + 1 : 0);
      const bool known = absl::c_any_of(kModules, [&](absl::string_view module) { return absl::StartsWith(rest, module); });
      if (!numbered || layer < 0 || layer >= layers || !known) {
        return absl::UnimplementedError(absl::StrCat(tensors_->Where(name), " has no place in a Llama of ", layers, " layers"));
      }
    }
    for (const std::string& module : tensors_->NamesBefore(".bias")) NIBBLE_RETURN_IF_ERROR(tensors_->RefuseBias(module));
    return absl::OkStatus();
  }

  bool Has(const std::string& name) const override {
    return tensors_->Has(name) || encodings_.count(name) > 0 || FindQuantized(name) != nullptr;
  }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    const auto encoding = encodings_.find(name);
    if (encoding != encodings_.end()) return LoadEncoded(name, encoding->second);
    if (const auto* load = FindQuantized(name); load != nullptr) return (*load)();
    NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, tensors_->Get(name));
    NIBBLE_RETURN_IF_ERROR(Annotate(CheckShape(tensor.shape()), tensors_->Where(name)));
    auto wrapped = WrapFloats(std::move(tensor));
    if (!wrapped.ok()) return Annotate(wrapped.status(), tensors_->Where(name));
    return wrapped;
  }

 private:
  absl::StatusOr<FilePtr> OpenFile(const std::string& path) {
    NIBBLE_ASSIGN_OR_RETURN(const FilePtr file, SafetensorsFile::Open(path));
    const auto schemes = file->metadata().find(kSchemesKey);
    if (schemes == file->metadata().end()) return file;
    const std::string source = absl::StrCat(path, " metadata '", kSchemesKey, "'");
    NIBBLE_ASSIGN_OR_RETURN(const json object, ParseStrictObject(schemes->second, source));
    for (const auto& [name, entry] : object.items()) {
      auto encoding = ReadEncoding(entry);
      if (!encoding.ok()) return Annotate(encoding.status(), absl::StrCat(source, ": '", name, "'"));
      encoding->file = file;
      if (!encodings_.emplace(name, *std::move(encoding)).second) {
        return absl::InvalidArgumentError(absl::StrCat(source, ": '", name, "' is in another file as well"));
      }
    }
    return file;
  }

  static absl::StatusOr<EncodedTensor> LoadEncoded(const std::string& name, const Encoding& encoding) {
    const std::string where = absl::StrCat(encoding.file->path(), ": parameter '", name, "'");
    NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(encoding.scheme.format()));
    EncodedTensor tensor{encoding.scheme, encoding.shape, {}};
    for (const BufferSpec& spec : format->Layout(encoding.scheme, encoding.shape)) {
      NIBBLE_ASSIGN_OR_RETURN(Tensor buffer, encoding.file->Get(absl::StrCat(name, ".", spec.name)));
      tensor.buffers.emplace(spec.name, Aligned(std::move(buffer)));
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(CheckEncoded(tensor), where));
    return tensor;
  }

  // How the weight of that name is loaded where the layout holds it, else null.
  const std::function<absl::StatusOr<EncodedTensor>()>* FindQuantized(absl::string_view name) const {
    if (!absl::ConsumeSuffix(&name, ".weight")) return nullptr;
    const auto it = layout_.weights.find(std::string(name));
    return it == layout_.weights.end() ? nullptr : &it->second;
  }

  const std::shared_ptr<TensorFiles> tensors_ = std::make_shared<TensorFiles>();
  std::map<std::string, Encoding> encodings_;
  QuantizedLayout layout_;
};

// config.json's quantization_config, or the file that GPTQ's tools write beside a
// config.json without one. Null where the folder has neither.
absl::StatusOr<json> ReadQuantizationConfig(const std::string& folder, const json& config, HfModel* model) {
  const auto found = config.find("quantization_config");
  if (found != config.end() && !found->is_null()) return json(*found);
  const std::string path = folder + kQuantizeConfigFile;
  if (!FileExists(path)) return json();
  model->files.push_back(path);
  NIBBLE_ASSIGN_OR_RETURN(json settings, ReadObject(path));
  if (!settings.contains("quant_method")) settings["quant_method"] = "gptq";
  return settings;
}

absl::Status ReadLayout(const std::string& folder, const json& config, HfStore* store, HfModel* model) {
  NIBBLE_ASSIGN_OR_RETURN(const json quantization, ReadQuantizationConfig(folder, config, model));
  if (quantization.is_null()) return absl::OkStatus();
  NIBBLE_RETURN_IF_ERROR(Annotate(store->OpenLayout(quantization), folder));
  model->attachments.activations = store->layout().activations;
  model->note = store->layout().note;
  return absl::OkStatus();
}

absl::Status ReadWeights(const std::string& folder, const json& config, HfModel* model) {
  auto store = std::make_shared<HfStore>();
  if (FileExists(folder + kWeightsFile)) {
    model->files.push_back(folder + kWeightsFile);
    NIBBLE_RETURN_IF_ERROR(store->AddFile(folder + kWeightsFile));
  } else if (FileExists(folder + kIndexFile)) {
    model->files.push_back(folder + kIndexFile);
    NIBBLE_RETURN_IF_ERROR(store->AddShards(folder, folder + kIndexFile, &model->files));
  } else {
    return absl::NotFoundError(absl::StrCat(folder, ": neither model.safetensors nor model.safetensors.index.json is there; ",
                                            "pytorch_model.bin is not read, save the model as safetensors"));
  }
  NIBBLE_RETURN_IF_ERROR(store->RefuseForeign(model->config.num_hidden_layers));
  NIBBLE_RETURN_IF_ERROR(ReadLayout(folder, config, store.get(), model));
  model->weights = std::move(store);
  return absl::OkStatus();
}

// A tokenizer.json, or a tokenizer.model, which is SentencePiece's or tiktoken's.
absl::StatusOr<std::unique_ptr<text::Tokenizer>> ReadTokenizer(absl::string_view contents, absl::string_view config_or_empty, const std::string& path) {
  if (absl::EndsWith(path, ".json")) return text::TokenizerFromJson(contents, config_or_empty, path);
  if (text::IsTiktoken(contents)) return text::TokenizerFromTiktoken(contents, config_or_empty, path);
  return text::TokenizerFromSentencePiece(contents, config_or_empty, path);
}

absl::Status ReadText(const json& object, const char* key, const std::string& path, std::string* out) {
  const auto it = object.find(key);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_string()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", key, " is not a string"));
  *out = it->get<std::string>();
  return absl::OkStatus();
}

// The entries of the object `key`, by module, where it is there. Errors name
// them.
absl::Status ForEachEntry(const json& object, const char* key, const std::string& path,
                          absl::FunctionRef<absl::Status(const std::string& module, const json& entry)> read) {
  const auto found = object.find(key);
  if (found == object.end()) return absl::OkStatus();
  if (!found->is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", key, " is not an object"));
  for (const auto& [module, entry] : found->items()) {
    NIBBLE_RETURN_IF_ERROR(Annotate(read(module, entry), absl::StrCat(path, ": ", key, " of '", module, "'")));
  }
  return absl::OkStatus();
}

absl::Status ReadActivation(const std::string& module, const json& text, ir::Attachments* attachments) {
  if (!text.is_string()) return absl::InvalidArgumentError("not a string");
  NIBBLE_ASSIGN_OR_RETURN(attachments->activations[module], SchemeFromText(text.get_ref<const std::string&>()));
  return absl::OkStatus();
}

absl::Status ReadAdapter(const std::string& module, const json& entry, ir::Attachments* attachments) {
  const auto rank = entry.is_object() ? entry.find("rank") : entry.end();
  const auto scale = entry.is_object() ? entry.find("scale") : entry.end();
  if (!entry.is_object() || rank == entry.end() || !rank->is_number_unsigned() || scale == entry.end() || !scale->is_number()) {
    return absl::InvalidArgumentError(absl::StrCat("expected {\"rank\": 16, \"scale\": 2}, got ", entry.dump()));
  }
  attachments->adapters.push_back({module, static_cast<int64_t>(rank->get<uint64_t>()), scale->get<float>()});
  return absl::OkStatus();
}

absl::Status ReadRotation(const std::string& module, const json& block, ir::Attachments* attachments) {
  if (!block.is_number_unsigned() || block.get<uint64_t>() > (uint64_t{1} << 20)) {
    return absl::InvalidArgumentError(absl::StrCat("expected the columns of a block, got ", block.dump()));
  }
  attachments->rotations.push_back({module, static_cast<int64_t>(block.get<uint64_t>())});
  return absl::OkStatus();
}

absl::Status ReadCache(const std::string& module, const json& entry, ir::Attachments* attachments) {
  ir::Attachments::CacheSchemes& schemes = attachments->caches[module];
  for (const auto& [which, text] : entry.items()) {
    if ((which != "keys" && which != "values") || !text.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("expected schemes of \"keys\" and \"values\", got ", entry.dump()));
    }
    NIBBLE_ASSIGN_OR_RETURN((which == "keys" ? schemes.keys : schemes.values), SchemeFromText(text.get_ref<const std::string&>()));
  }
  return absl::OkStatus();
}

absl::Status ReadAttachments(const json& object, const std::string& path, ir::Attachments* attachments) {
  const auto each = [&](const char* key, const auto& read) {
    return ForEachEntry(object, key, path, [&](const std::string& module, const json& entry) { return read(module, entry, attachments); });
  };
  NIBBLE_RETURN_IF_ERROR(each("activations", ReadActivation));
  NIBBLE_RETURN_IF_ERROR(each("adapters", ReadAdapter));
  NIBBLE_RETURN_IF_ERROR(each("rotations", ReadRotation));
  return each("caches", ReadCache);
}

absl::Status ReadNibbleFile(const std::string& folder, HfModel* model) {
  const std::string path = folder + kNibbleFile;
  if (!FileExists(path)) return absl::OkStatus();
  model->files.push_back(path);
  NIBBLE_ASSIGN_OR_RETURN(const json object, ReadObject(path));
  const auto version = object.find("format_version");
  if (version == object.end() || *version != kFormatVersion) {
    return absl::UnimplementedError(absl::StrCat(path, ": format_version is ", version == object.end() ? "missing" : version->dump(),
                                                 ", this Nibble reads ", kFormatVersion));
  }
  NIBBLE_RETURN_IF_ERROR(ReadText(object, "pipeline", path, &model->pipeline));
  NIBBLE_RETURN_IF_ERROR(ReadText(object, "note", path, &model->note));
  return ReadAttachments(object, path, &model->attachments);
}

}  // namespace

absl::Status ReadFolderTokenizer(const std::string& folder, HfModel* model) {
  const std::string path = folder + (FileExists(folder + kTokenizerFile) ? kTokenizerFile : kTokenizerModelFile);
  if (!FileExists(path)) return absl::OkStatus();
  model->files.push_back(path);
  NIBBLE_ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(path));
  std::string config;
  if (FileExists(folder + kTokenizerConfigFile)) {
    model->files.push_back(folder + kTokenizerConfigFile);
    NIBBLE_ASSIGN_OR_RETURN(config, ReadFile(folder + kTokenizerConfigFile));
  }
  NIBBLE_ASSIGN_OR_RETURN(model->tokenizer, ReadTokenizer(tokenizer, config, path));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const text::Tokenizer>> ReadTokenizerFile(const std::string& path) {
  if (!absl::EndsWith(path, ".json") && !absl::EndsWith(path, ".model")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a tokenizer is a tokenizer.json or a tokenizer.model (SentencePiece's or tiktoken's)"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const std::string contents, ReadFile(path));
  NIBBLE_ASSIGN_OR_RETURN(auto tokenizer, ReadTokenizer(contents, "", path));
  return std::shared_ptr<const text::Tokenizer>(std::move(tokenizer));
}

absl::StatusOr<HfModel> ReadHfFolder(const std::string& folder) {
  const std::string config_path = folder + kConfigFile;
  if (!FileExists(config_path)) {
    return absl::NotFoundError(absl::StrCat(folder, ": no config.json, so this is no Hugging Face model folder"));
  }
  HfModel model;
  model.files.push_back(config_path);
  NIBBLE_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path));
  NIBBLE_ASSIGN_OR_RETURN(model.config, LlamaConfig::FromJson(config, config_path));
  NIBBLE_ASSIGN_OR_RETURN(const json object, ParseStrictObject(config, config_path));
  NIBBLE_RETURN_IF_ERROR(ReadWeights(folder, object, &model));
  NIBBLE_RETURN_IF_ERROR(ReadFolderTokenizer(folder, &model));
  NIBBLE_RETURN_IF_ERROR(ReadNibbleFile(folder, &model));
  return model;
}

}  // namespace nibble::io
