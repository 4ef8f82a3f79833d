#include "core/io/gguf_model_writer.h"

#include <algorithm>
#include <map>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/checkpoint_files.h"
#include "core/io/gguf.h"
#include "core/io/gguf_model.h"
#include "core/io/gguf_writer.h"
#include "core/io/rope_rows.h"
#include "core/quant/format.h"
#include "core/quant/formats/gguf/gguf.h"
#include "core/text/added_tokens.h"

namespace nibble::io {
namespace {

constexpr int64_t kQuantizationVersion = 2;  // of ggml's block layouts

constexpr char kEndOfTurn[] = "eot_token_id", kEndOfMessage[] = "eom_token_id";
// What end tokens end, by their texts in published vocabularies.
constexpr absl::string_view kTextsOfTurns[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>"};
constexpr absl::string_view kTextsOfMessages[] = {"<|eom_id|>"};
constexpr absl::string_view kTextsOfDocuments[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>"};

constexpr char kGeneral[] = "general.", kName[] = "general.name", kDescription[] = "general.description";
// What a file decides for itself, whatever it was made from; GgufWriter adds the alignment.
constexpr absl::string_view kOwnKeys[] = {"general.architecture", "general.type", "general.file_type", "general.quantization_version",
                                          "general.quantized_by", "general.alignment"};

absl::Status Refuse(const std::string& what, const std::string& module, absl::string_view advice) {
  return absl::UnimplementedError(absl::StrCat(module, " has ", what, ", which GGUF cannot hold; ", advice));
}

absl::Status CheckAttachments(const ir::Attachments& attachments) {
  if (!attachments.activations.empty()) {
    const auto& [module, scheme] = *attachments.activations.begin();
    return Refuse(absl::StrCat("an activation scheme (", SchemeToString(scheme), ")"), module, "leave out the step that quantizes activations");
  }
  if (!attachments.rotations.empty()) {
    return Refuse("an online rotation", attachments.rotations[0].module, "rotate with matrices that merge into weights only (r3 and r4 off)");
  }
  if (!attachments.adapters.empty()) return Refuse("an adapter", attachments.adapters[0].module, "merge it into its weight first");
  if (!attachments.caches.empty()) {
    return Refuse("a scheme for its KV cache", attachments.caches.begin()->first, "leave out kv_cache and choose the cache's type where the model runs");
  }
  return absl::OkStatus();
}

// A parameter's place in the file. Norms become F32, as llama.cpp's kernels want them.
absl::StatusOr<GgufTensorSpec> SpecOf(const CheckpointParameter& parameter) {
  GgufTensorSpec spec{GgufTensorName(parameter.name), parameter.shape, GgufTypeOfFormat(parameter.scheme.format())};
  if (spec.name.empty()) return absl::UnimplementedError(absl::StrCat(parameter.name, ": a Llama's GGUF file has no such tensor"));
  if (spec.type == nullptr) {
    return absl::UnimplementedError(absl::StrCat(parameter.name, ": GGUF cannot hold ", SchemeToString(parameter.scheme),
                                                 "; quantize it with kquants, leave it in bf16, fp16 or fp32, or write a folder (--format folder)"));
  }
  if (spec.shape.size() == 1) spec.type = GgufTypeOfFormat("fp32");
  return spec;
}

// The nearest of llama.cpp's file types (llama_ftype): that of the type that most of the
// blocks' weights have, _M or _L where some of them have a larger one.
int64_t FileType(const std::vector<CheckpointParameter>& parameters) {
  static const std::map<std::string, int64_t>& types = *new std::map<std::string, int64_t>{
      {"fp32", 0}, {"fp16", 1}, {"q4_0", 2}, {"q4_1", 3}, {"q8_0", 7}, {"q5_0", 8}, {"q5_1", 9}, {"q2_k", 10},
      {"q3_k", 11}, {"q4_k", 14}, {"q5_k", 16}, {"q6_k", 18}, {"iq4_nl", 25}, {"bf16", 32}};
  std::map<std::string, int64_t> elements;
  for (const CheckpointParameter& parameter : parameters) {
    if (parameter.shape.size() < 2 || !absl::StartsWith(parameter.name, "model.layers.")) continue;
    elements[parameter.scheme.format()] += parameter.shape[0] * parameter.shape[1];
  }
  if (elements.empty()) return 0;
  const auto most = std::max_element(elements.begin(), elements.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto has = [&](const char* format) { return elements.count(format) > 0; };
  // The mixes S, M and L of a type have numbers in this order; L of q3_k has q5_k where M has q4_k.
  int64_t more = 0;
  if (most->first == "q3_k") more = has("q4_k") ? 1 : has("q5_k") ? 2 : 0;
  if (most->first == "q4_k" || most->first == "q5_k") more = has("q6_k") ? 1 : 0;
  return types.at(most->first) + more;
}

void AddArchitecture(const LlamaConfig& config, GgufMetadata* metadata) {
  const auto key = [](absl::string_view name) { return absl::StrCat("llama.", name); };
  metadata->AddInteger(key("vocab_size"), config.vocab_size);
  metadata->AddInteger(key("context_length"), config.max_position_embeddings);
  metadata->AddInteger(key("embedding_length"), config.hidden_size);
  metadata->AddInteger(key("block_count"), config.num_hidden_layers);
  metadata->AddInteger(key("feed_forward_length"), config.intermediate_size);
  metadata->AddInteger(key("attention.head_count"), config.num_attention_heads);
  metadata->AddInteger(key("attention.head_count_kv"), config.num_key_value_heads);
  metadata->AddInteger(key("attention.key_length"), config.head_dim);
  metadata->AddInteger(key("attention.value_length"), config.head_dim);
  metadata->AddReal(key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
  if (config.sliding_window.has_value()) metadata->AddInteger(key("attention.sliding_window"), *config.sliding_window);
  metadata->AddInteger(key("rope.dimension_count"), config.head_dim);
  metadata->AddReal(key("rope.freq_base"), config.rope_theta);
  if (config.rope_linear_factor != 1) {
    metadata->AddText(key("rope.scaling.type"), "linear");
    metadata->AddReal(key("rope.scaling.factor"), config.rope_linear_factor);
  }
}

// The text at `key`; "" where there is none.
std::string TextOf(const GgufGeneral& general, const char* key) {
  const auto found = general.find(key);
  const std::string* text = found == general.end() ? nullptr : std::get_if<std::string>(&found->second.value);
  return text == nullptr ? "" : *text;
}

// A text, a list of texts or a count, and nothing of other types.
void AddValue(const std::string& key, const GgufValue& value, GgufMetadata* metadata) {
  if (const auto* text = std::get_if<std::string>(&value.value); text != nullptr) {
    metadata->AddText(key, *text);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&value.value); texts != nullptr) {
    metadata->AddTexts(key, *texts);
  } else if (value.type == GgufType::kU32) {
    metadata->AddInteger(key, std::get<int64_t>(value.value));
  }
}

void AddGeneral(const std::string& name, const GgufGeneral& general, const Checkpoint& checkpoint, GgufMetadata* metadata) {
  metadata->AddText("general.architecture", "llama");
  metadata->AddText("general.type", "model");
  metadata->AddInteger("general.file_type", FileType(checkpoint.parameters));
  metadata->AddInteger("general.quantization_version", kQuantizationVersion);
  const std::string given = TextOf(general, kName);
  metadata->AddText(kName, given.empty() ? name : given);
  std::string description = TextOf(general, kDescription);
  if (!checkpoint.pipeline.empty()) absl::StrAppend(&description, description.empty() ? "" : "; ", "Quantized by Nibble: ", checkpoint.pipeline);
  if (!description.empty()) metadata->AddText(kDescription, description);
  for (const auto& [key, value] : general) {
    if (key != kName && key != kDescription && !absl::c_linear_search(kOwnKeys, key)) AddValue(key, value, metadata);
  }
}

// The keys of the end tokens that are not EOS, where `ids` has no such key; a token of a text
// that is not known ends a turn.
void NameEndTokens(const std::vector<int32_t>& ends, const text::GgufVocabulary& vocabulary, std::map<std::string, int32_t>* ids) {
  const auto name_first = [&](const char* key, const auto& fits) {
    for (const int32_t id : ends) {
      const bool has_text = static_cast<size_t>(id) < vocabulary.tokens.size();
      if (vocabulary.eos_id == id || !fits(has_text ? vocabulary.tokens[id] : "")) continue;
      ids->emplace(key, id);
      return;
    }
  };
  const auto is_message = [](absl::string_view text) { return absl::c_linear_search(kTextsOfMessages, text); };
  name_first(kEndOfMessage, is_message);
  name_first(kEndOfTurn, [](absl::string_view text) { return absl::c_linear_search(kTextsOfTurns, text); });
  name_first(kEndOfTurn, [&](absl::string_view text) { return !is_message(text) && !absl::c_linear_search(kTextsOfDocuments, text); });
}

void AddTokenIds(const text::GgufVocabulary& vocabulary, const TokenizerExtras& extras, const std::vector<int32_t>& ends, GgufMetadata* metadata) {
  std::map<std::string, int32_t> ids = extras.ids;
  NameEndTokens(ends, vocabulary, &ids);
  if (vocabulary.bos_id.has_value()) ids["bos_token_id"] = *vocabulary.bos_id;
  if (vocabulary.eos_id.has_value()) ids["eos_token_id"] = *vocabulary.eos_id;
  if (vocabulary.unk_id.has_value()) ids["unknown_token_id"] = *vocabulary.unk_id;
  for (const auto& [name, id] : ids) metadata->AddInteger(absl::StrCat(kGgufTokenizerPrefix, name), id);
  const auto is_named = [&](int32_t end) {
    for (const char* key : {"eos_token_id", kEndOfTurn, kEndOfMessage}) {
      const auto named = ids.find(key);
      if (named != ids.end() && named->second == end) return true;
    }
    return false;
  };
  if (!absl::c_all_of(ends, is_named)) metadata->AddIntegers(absl::StrCat(kGgufTokenizerPrefix, kGgufEndTokens), ends);
}

absl::Status AddTokenizer(const text::Tokenizer& tokenizer, const TokenizerExtras& extras, const LlamaConfig& config, GgufMetadata* metadata) {
  const int64_t rows = config.vocab_size;
  NIBBLE_ASSIGN_OR_RETURN(text::GgufVocabulary vocabulary, tokenizer.ToGguf());
  if (static_cast<int64_t>(vocabulary.tokens.size()) > rows) {
    return absl::InvalidArgumentError(absl::StrCat("the tokenizer has ", vocabulary.tokens.size(), " tokens, the embedding ", rows, " rows"));
  }
  for (int64_t id = static_cast<int64_t>(vocabulary.tokens.size()); id < rows; ++id) {
    vocabulary.tokens.push_back(absl::StrCat("[PAD", id, "]"));
    vocabulary.types.push_back(static_cast<int32_t>(text::TokenType::kUnused));
    if (!vocabulary.scores.empty()) vocabulary.scores.push_back(0);
  }
  const auto key = [](absl::string_view name) { return absl::StrCat(kGgufTokenizerPrefix, name); };
  metadata->AddText(key("model"), vocabulary.model);
  if (!vocabulary.pre.empty()) metadata->AddText(key("pre"), vocabulary.pre);
  metadata->AddTexts(key("tokens"), vocabulary.tokens);
  metadata->AddIntegers(key("token_type"), vocabulary.types);
  if (!vocabulary.scores.empty()) metadata->AddReals(key("scores"), vocabulary.scores);
  if (vocabulary.model == "gpt2") metadata->AddTexts(key("merges"), vocabulary.merges);
  AddTokenIds(vocabulary, extras, config.eos_token_ids, metadata);
  metadata->AddFlag(key("add_bos_token"), vocabulary.add_bos);
  if (extras.add_eos.has_value()) metadata->AddFlag(key("add_eos_token"), *extras.add_eos);
  if (vocabulary.add_space_prefix.has_value()) metadata->AddFlag(key("add_space_prefix"), *vocabulary.add_space_prefix);
  if (!extras.chat_template.empty()) metadata->AddText(kGgufChatTemplateKey, extras.chat_template);
  return absl::OkStatus();
}

absl::Status WriteParameter(const LlamaConfig& config, const CheckpointParameter& parameter, const EncodedTensor& tensor, GgufWriter* writer) {
  NIBBLE_RETURN_IF_ERROR(CheckAnnounced(parameter, tensor));
  const std::string name = GgufTensorName(parameter.name);
  if (tensor.shape.size() == 1) return writer->Write(name, Tensor::FromFloats(tensor.shape, Decode(tensor)).bytes());
  const Tensor& stored = tensor.buffers.begin()->second;  // of a float or a block format
  if (InterleavedHeads(parameter.name, config) == 0) return writer->Write(name, stored.bytes());
  return writer->Write(name, InterleavedRows(stored, config.head_dim).bytes());
}

}  // namespace

absl::StatusOr<GgufGeneral> ReadGgufGeneral(const std::vector<std::string>& files) {
  GgufGeneral general;
  for (const std::string& path : files) {
    if (!absl::EndsWith(path, ".gguf")) continue;
    NIBBLE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    for (const auto& [key, value] : file->metadata()) {
      if (absl::StartsWith(key, kGeneral)) general.emplace(key, value);
    }
  }
  return general;
}

absl::Status WriteGgufModel(const std::string& path, const std::string& name, const Checkpoint& checkpoint, const text::Tokenizer* tokenizer,
                            const TokenizerExtras& extras, const GgufGeneral& general) {
  const LlamaConfig& config = checkpoint.config;
  NIBBLE_RETURN_IF_ERROR(config.Validate());
  NIBBLE_RETURN_IF_ERROR(CheckAttachments(checkpoint.attachments));
  std::vector<GgufTensorSpec> specs;
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_ASSIGN_OR_RETURN(GgufTensorSpec spec, SpecOf(parameter));
    specs.push_back(std::move(spec));
  }
  const std::vector<float> factors = GgufRopeFactors(config);
  if (!factors.empty()) specs.push_back({kGgufRopeFactors, {static_cast<int64_t>(factors.size())}, GgufTypeOfFormat("fp32")});
  GgufMetadata metadata;
  AddGeneral(name, general, checkpoint, &metadata);
  AddArchitecture(config, &metadata);
  if (tokenizer == nullptr) {
    metadata.AddText(absl::StrCat(kGgufTokenizerPrefix, "model"), "no_vocab");
  } else {
    NIBBLE_RETURN_IF_ERROR(Annotate(AddTokenizer(*tokenizer, extras, config, &metadata), "tokenizer"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const auto writer, GgufWriter::Create(path, std::move(metadata), specs));
  for (const CheckpointParameter& parameter : checkpoint.parameters) {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, checkpoint.load(parameter.name));
    NIBBLE_RETURN_IF_ERROR(WriteParameter(config, parameter, tensor, writer.get()));
  }
  if (!factors.empty()) {
    NIBBLE_RETURN_IF_ERROR(writer->Write(kGgufRopeFactors, {reinterpret_cast<const uint8_t*>(factors.data()), factors.size() * sizeof(float)}));
  }
  return writer->Finish();
}

}  // namespace nibble::io
