#include "core/io/llama2c.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/rope_rows.h"
#include "core/text/llama2c_tokenizer.h"

namespace nibble::io {
namespace {

constexpr int64_t kHeaderBytes = 7 * 4;
constexpr uint32_t kLaterMagic = 0x616B3432;  // "24ka": versions 1 and 2

// A run of tensors of one shape, one for each layer or one in all.
struct Section {
  absl::string_view name;  // of the parameter; "" for what is skipped
  bool per_layer;
  Shape shape;
  bool interleaved = false;
};

std::vector<Section> Sections(const LlamaConfig& c) {
  const int64_t query = c.num_attention_heads * c.head_dim, key = c.num_key_value_heads * c.head_dim;
  const Shape rotary = {c.max_position_embeddings, c.head_dim / 2};
  std::vector<Section> sections = {{"model.embed_tokens.weight", false, {c.vocab_size, c.hidden_size}},
                                   {"input_layernorm.weight", true, {c.hidden_size}},
                                   {"self_attn.q_proj.weight", true, {query, c.hidden_size}, true},
                                   {"self_attn.k_proj.weight", true, {key, c.hidden_size}, true},
                                   {"self_attn.v_proj.weight", true, {key, c.hidden_size}},
                                   {"self_attn.o_proj.weight", true, {c.hidden_size, query}},
                                   {"post_attention_layernorm.weight", true, {c.hidden_size}},
                                   {"mlp.gate_proj.weight", true, {c.intermediate_size, c.hidden_size}},
                                   {"mlp.down_proj.weight", true, {c.hidden_size, c.intermediate_size}},
                                   {"mlp.up_proj.weight", true, {c.intermediate_size, c.hidden_size}},
                                   {"model.norm.weight", false, {c.hidden_size}},
                                   {"", false, rotary},
                                   {"", false, rotary}};
  if (!c.tie_word_embeddings) sections.push_back({"lm_head.weight", false, {c.vocab_size, c.hidden_size}});
  return sections;
}

// Elements of a shape whose dimensions are below 2^24.
int64_t Elements(const Shape& shape) { return shape.size() == 1 ? shape[0] : shape[0] * shape[1]; }

absl::StatusOr<LlamaConfig> ReadHeader(const MappedFile& file) {
  if (file.bytes().size() < kHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("only ", file.bytes().size(), " bytes long, no llama2.c checkpoint"));
  }
  std::array<int32_t, 7> header;
  std::memcpy(header.data(), file.bytes().data(), kHeaderBytes);
  if (static_cast<uint32_t>(header[0]) == kLaterMagic) {
    return absl::UnimplementedError("a llama2.c checkpoint of version 1 or 2; export it with --version 0");
  }
  LlamaConfig config;
  config.hidden_size = header[0];
  config.intermediate_size = header[1];
  config.num_hidden_layers = header[2];
  config.num_attention_heads = header[3];
  config.num_key_value_heads = header[4];
  config.head_dim = header[3] > 0 ? header[0] / header[3] : 0;
  config.vocab_size = std::abs(int64_t{header[5]});
  config.tie_word_embeddings = header[5] > 0;
  config.max_position_embeddings = header[6];
  config.bos_token_id = 1;
  config.eos_token_ids = {2};
  NIBBLE_RETURN_IF_ERROR(config.Validate());
  if (config.head_dim * config.num_attention_heads == config.hidden_size) return config;
  return absl::InvalidArgumentError(
      absl::StrCat("dim ", header[0], " is no multiple of n_heads ", header[3], ", no llama2.c checkpoint"));
}

absl::Status CheckSize(const MappedFile& file, const LlamaConfig& config) {
  absl::uint128 expected = kHeaderBytes;
  for (const Section& section : Sections(config)) {
    const int64_t copies = section.per_layer ? config.num_hidden_layers : 1;
    expected += absl::uint128(Elements(section.shape)) * copies * sizeof(float);
  }
  if (expected == file.bytes().size()) return absl::OkStatus();
  const std::string needed = absl::Uint128High64(expected) > 0 ? "more than 2^64" : absl::StrCat(absl::Uint128Low64(expected));
  return absl::InvalidArgumentError(absl::StrCat("has ", file.bytes().size(), " bytes, its header implies ", needed,
                                                 "; it is truncated or no llama2.c checkpoint of version 0"));
}

class Llama2cStore : public WeightStore {
 public:
  // The file's size has been checked.
  Llama2cStore(std::shared_ptr<const MappedFile> file, const LlamaConfig& config)
      : file_(std::move(file)), head_dim_(config.head_dim) {
    int64_t offset = kHeaderBytes;
    for (const Section& section : Sections(config)) {
      const int64_t copies = section.per_layer ? config.num_hidden_layers : 1;
      for (int64_t layer = 0; layer < copies; ++layer) {
        const std::string prefix = section.per_layer ? absl::StrCat("model.layers.", layer, ".") : "";
        if (!section.name.empty()) places_[absl::StrCat(prefix, section.name)] = {offset, section.shape, section.interleaved};
        offset += Elements(section.shape) * static_cast<int64_t>(sizeof(float));
      }
    }
  }

  bool Has(const std::string& name) const override { return places_.count(name) > 0; }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    const auto it = places_.find(name);
    if (it == places_.end()) return absl::NotFoundError(absl::StrCat(file_->path(), ": no tensor '", name, "'"));
    const Place& place = it->second;
    const auto bytes = file_->bytes().subspan(place.offset, Elements(place.shape) * sizeof(float));
    NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Borrow(DType::kF32, place.shape, bytes, file_));
    return WrapFloats(place.interleaved ? HalfSplitRows(tensor, head_dim_) : std::move(tensor));
  }

 private:
  struct Place {
    int64_t offset = 0;
    Shape shape;
    bool interleaved = false;
  };

  const std::shared_ptr<const MappedFile> file_;
  const int64_t head_dim_;
  std::map<std::string, Place> places_;
};

absl::Status AddTokenizer(const std::string& path, Llama2cModel* model) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  for (const std::string& name : {absl::StrCat("tok", model->config.vocab_size, ".bin"), std::string("tokenizer.bin")}) {
    const std::string candidate = (folder / name).string();
    if (!FileExists(candidate)) continue;
    NIBBLE_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(candidate));
    NIBBLE_ASSIGN_OR_RETURN(model->tokenizer,
                            text::TokenizerFromLlama2c(file->bytes(), static_cast<int>(model->config.vocab_size), candidate));
    model->tokenizer_path = candidate;
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Llama2cModel> ReadLlama2c(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  Llama2cModel model;
  auto config = ReadHeader(*file);
  if (!config.ok()) return Annotate(config.status(), path);
  model.config = *std::move(config);
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckSize(*file, model.config), path));
  model.weights = std::make_shared<Llama2cStore>(file, model.config);
  NIBBLE_RETURN_IF_ERROR(AddTokenizer(path, &model));
  return model;
}

}  // namespace nibble::io
