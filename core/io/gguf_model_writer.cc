#include "core/io/gguf_model_writer.h"

#include <algorithm>
#include <map>

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

constexpr char kEndOfTurn[] = "eot_token_id";
constexpr int64_t kQuantizationVersion = 2;  // of ggml's block layouts

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
// blocks' weights have, _M where some of them have a larger one.
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
  const bool more = (most->first == "q3_k" && elements.count("q4_k") > 0) || ((most->first == "q4_k" || most->first == "q5_k") && elements.count("q6_k") > 0);
  return types.at(most->first) + (more ? 1 : 0);
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

// The first of the model's end tokens that is not the tokenizer's EOS.
std::optional<int32_t> EndOfTurn(const LlamaConfig& config, const text::Tokenizer& tokenizer) {
  for (const int32_t id : config.eos_token_ids) {
    if (tokenizer.eos_id() != id) return id;
  }
  return std::nullopt;
}

absl::Status AddTokenizer(const text::Tokenizer& tokenizer, const TokenizerExtras& extras, std::optional<int32_t> end_of_turn, int64_t rows,
                          GgufMetadata* metadata) {
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
  if (vocabulary.bos_id.has_value()) metadata->AddInteger(key("bos_token_id"), *vocabulary.bos_id);
  if (vocabulary.eos_id.has_value()) metadata->AddInteger(key("eos_token_id"), *vocabulary.eos_id);
  if (vocabulary.unk_id.has_value()) metadata->AddInteger(key("unknown_token_id"), *vocabulary.unk_id);
  for (const auto& [name, id] : extras.ids) metadata->AddInteger(key(name), id);
  if (end_of_turn.has_value() && extras.ids.count(kEndOfTurn) == 0) metadata->AddInteger(key(kEndOfTurn), *end_of_turn);
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

absl::Status WriteGgufModel(const std::string& path, const std::string& name, const Checkpoint& checkpoint, const text::Tokenizer* tokenizer,
                            const TokenizerExtras& extras) {
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
  metadata.AddText("general.architecture", "llama");
  metadata.AddText("general.type", "model");
  metadata.AddText("general.name", name);
  if (!checkpoint.pipeline.empty()) metadata.AddText("general.description", absl::StrCat("Quantized by Nibble: ", checkpoint.pipeline));
  metadata.AddInteger("general.file_type", FileType(checkpoint.parameters));
  metadata.AddInteger("general.quantization_version", kQuantizationVersion);
  AddArchitecture(config, &metadata);
  if (tokenizer == nullptr) {
    metadata.AddText(absl::StrCat(kGgufTokenizerPrefix, "model"), "no_vocab");
  } else {
    NIBBLE_RETURN_IF_ERROR(Annotate(AddTokenizer(*tokenizer, extras, EndOfTurn(config, *tokenizer), config.vocab_size, &metadata), "tokenizer"));
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
