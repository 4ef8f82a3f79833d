// Writes the binary seeds of the corpora, the same bytes on every run:
//   bazel run //fuzz:make_seeds -- $PWD/fuzz/corpus
// Seeds that are text were written by hand, and inputs that a fuzzer found lie beside
// them (found_*); this program touches neither.

#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/io/gguf_testing.h"
#include "core/io/hf_folder.h"
#include "core/io/safetensors.h"
#include "core/io/torch_file.h"
#include "core/text/bpe.h"
#include "core/text/sentencepiece_model.pb.h"
#include "core/text/testing/tiny_vocabulary.h"
#include "core/train/rotation_learner.h"
#include "eval/raw_records.h"
#include "fuzz/tiny_training.h"

namespace nibble::fuzz {
namespace {

using io::Bytes;

constexpr char kSeparator[] = "\n%%\n";
constexpr char kUp[] = "model.layers.0.mlp.up_proj.weight";

class Seeds {
 public:
  explicit Seeds(std::string root) : root_(std::move(root)) {}

  void Write(const std::string& target, const std::string& name, const std::string& contents) const {
    NIBBLE_CHECK_OK(MakeDirectories(absl::StrCat(root_, "/", target)));
    io::WriteQuickly(absl::StrCat(root_, "/", target, "/", name), contents);
  }

  // What `write` puts into the file whose path it is given.
  template <typename WriteTo>
  std::string Made(const WriteTo& write) const {
    const std::string path = absl::StrCat(root_, "/.made");
    NIBBLE_CHECK_OK(write(path));
    const std::string contents = ReadFile(path).value();
    std::remove(path.c_str());
    return contents;
  }

 private:
  const std::string root_;
};

void Safetensors(const Seeds& seeds) {
  const std::vector<std::pair<std::string, Tensor>> tensors = {{"b", FloatsToDType(DType::kBF16, {3}, {1, 2, 3})},
                                                               {"u", Tensor::Zeros(DType::kU8, {5})},
                                                               {"f", Tensor::FromFloats({2, 2}, {1, -2, 3, -4})},
                                                               {"empty", Tensor::Zeros(DType::kF32, {0, 4})}};
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  seeds.Write("safetensors", "tensors", seeds.Made([&](const std::string& path) { return io::WriteSafetensors(path, tensors, metadata); }));
}

void Gguf(const Seeds& seeds) {
  io::GgufBuilder model = io::TinyLlamaMetadata();
  model.Flag("tokenizer.ggml.add_bos_token", true);
  seeds.Write("gguf", "metadata", model.Build());
  io::AddTinyLlamaTensors(&model);
  seeds.Write("gguf", "llama", model.Build());
  io::GgufBuilder values;
  values.Value("i8", io::GgufType::kI8, Bytes<int8_t>(-3)).Value("u64", io::GgufType::kU64, Bytes<uint64_t>(~uint64_t{0})).Real("f", 1.5f);
  values.Numbers<int16_t>("ints", io::GgufType::kI16, {1, -2}).Numbers<double>("reals", io::GgufType::kF64, {0.5}).Strings("texts", {"a", "", "ccc"});
  const std::string inner = Bytes(uint32_t{0}) + Bytes(uint64_t{2}) + std::string("\x01\x02");
  values.Array("nested", io::GgufType::kArray, 2, inner + inner).Integer("general.alignment", 64);
  seeds.Write("gguf", "values", values.Build(2));
  const text::BpeVocabulary bpe = text::TinyBpe({{"a", "b"}});
  io::GgufBuilder tokens;
  std::vector<int32_t> types(bpe.tokens.size(), 1);
  types.back() = 3;
  tokens.Text("tokenizer.ggml.model", "gpt2").Text("tokenizer.ggml.pre", "smollm").Strings("tokenizer.ggml.tokens", bpe.tokens);
  tokens.Strings("tokenizer.ggml.merges", {"a b"}).Numbers<int32_t>("tokenizer.ggml.token_type", io::GgufType::kI32, types);
  seeds.Write("gguf", "bpe", tokens.Build());
}

void Llama2c(const Seeds& seeds) {
  for (const int32_t vocab : {5, -5}) {
    const int32_t header[] = {8, 12, 2, 2, 1, vocab, 4};
    const int64_t layer = 2 * 8 + 2 * 64 + 2 * 32 + 3 * 96, floats = (vocab < 0 ? 2 : 1) * 40 + 2 * layer + 8 + 4 * 4;
    std::string file(reinterpret_cast<const char*>(header), sizeof(header));
    for (int64_t i = 0; i < floats; ++i) file += Bytes(static_cast<float>(i) / 64);
    seeds.Write("llama2c", vocab < 0 ? "untied" : "tied", file);
  }
  std::string tokens = "\x04" + Bytes(int32_t{7});
  const auto add = [&](float score, const std::string& piece) { tokens += Bytes(score) + Bytes(static_cast<int32_t>(piece.size())) + piece; };
  for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n"}) add(0, piece);
  for (int byte = 0; byte < 256; ++byte) add(0, text::BytePiece(static_cast<uint8_t>(byte)));
  for (const char* piece : {" ", "a", "b", " a"}) add(-1 - static_cast<float>(std::strlen(piece)), piece);
  seeds.Write("llama2c_tokenizer", "tokens", tokens);
}

std::string PickleText(const std::string& text) { return "X" + Bytes(static_cast<uint32_t>(text.size())) + text; }

void Torch(const Seeds& seeds) {
  using namespace std::string_literals;
  seeds.Write("torch_pickle", "state_dict",
              "\x80\x02}q\x00"s + PickleText("a") + "q\x01" + "ctorch._utils\n_rebuild_tensor_v2\nq\x02((" + PickleText("storage") +
                  "q\x03" + "ctorch\nFloatStorage\nq\x04" + PickleText("0") + "q\x05" + PickleText("cpu") +
                  "q\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q\x09\x89"s + "ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\x0ds.");
  Tensor codes = Tensor::Zeros(DType::kI8, {2, 3});
  for (int i = 0; i < 6; ++i) codes.mutable_as<int8_t>()[i] = static_cast<int8_t>(i - 3);
  seeds.Write("torch_file", "two_tensors", seeds.Made([&](const std::string& path) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(const auto writer, io::TorchWriter::Create(path, {{"w", DType::kI8, {2, 3}}, {"s", DType::kF32, {2, 1}}}));
    NIBBLE_RETURN_IF_ERROR(writer->Write("w", codes));
    NIBBLE_RETURN_IF_ERROR(writer->Write("s", Tensor::FromFloats({2, 1}, {0.5f, -0.25f})));
    return writer->Finish();
  }));
}

void Tokenizers(const Seeds& seeds) {
  const std::string text = absl::StrCat("ab <|end|> caf\u00e9 12  x\xFF", kSeparator);
  const auto bpe = text::MakeBpe(text::TinyBpe({{"a", "b"}})).value();
  seeds.Write("tokenizer_json", "bpe", absl::StrCat(bpe->ToJson(), kSeparator, bpe->ToConfigJson(), kSeparator, text));
  text::SpmVocabulary spm = text::TinySpm({{"a", -9}, {"b", -9}, {"ab", -1}, {"\u2581ab", -2}});
  const auto pieces = text::MakeSpm(spm).value();
  seeds.Write("tokenizer_json", "spm", absl::StrCat(pieces->ToJson(), kSeparator, "{\"add_bos_token\": true}", kSeparator, text));

  text::SentencePieceModel model;
  for (size_t i = 0; i < spm.pieces.size(); ++i) {
    auto* piece = model.add_pieces();
    piece->set_piece(spm.pieces[i]);
    piece->set_score(spm.scores[i]);
    piece->set_type(spm.types[i]);
  }
  model.mutable_trainer_spec()->set_model_type(text::SentencePieceModel::TrainerSpec::BPE);
  model.mutable_trainer_spec()->set_byte_fallback(true);
  model.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  seeds.Write("sentencepiece", "bytes", absl::StrCat("{\"bos_token\": \"<s>\"}", kSeparator, text, model.SerializeAsString()));
  text::SentencePieceModel small;
  for (const char* text : {"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"}) {
    auto* piece = small.add_pieces();
    piece->set_piece(text);
    piece->set_score(static_cast<float>(-small.pieces_size()));
    piece->set_type(small.pieces_size() == 1 ? 2 : small.pieces_size() <= 3 ? 3 : 1);
  }
  small.mutable_trainer_spec()->set_model_type(text::SentencePieceModel::TrainerSpec::BPE);
  small.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  seeds.Write("sentencepiece", "unknown", absl::StrCat(kSeparator, "a b", kSeparator, small.SerializeAsString()));

  seeds.Write("tiktoken", "ranks", absl::StrCat(kSeparator, "abc 1234 <|eot_id|>", kSeparator, text::TinyTiktoken({"ab", "bc", "abc", "12"})));
  seeds.Write("tiktoken", "config",
              absl::StrCat(R"({"eos_token": "<|end|>", "added_tokens_decoder": {"258": {"content": "<|end|>"}}})", kSeparator, text, text::TinyTiktoken({"ab"})));
}

// Every tensor of the tiny model, in bf16; `names` gives them other names, and leaves out
// those that become "".
template <typename Name>
std::vector<std::pair<std::string, Tensor>> TinyWeights(const Name& name, const LlamaConfig& config = TinyConfig()) {
  const auto weights = SyntheticWeights(config, 1);
  std::vector<std::pair<std::string, Tensor>> tensors;
  const ir::Graph graph = BuildLlama(config, weights).value();
  for (const ir::Parameter& parameter : graph.parameters()) {
    const std::string called = name(parameter.name());
    if (!called.empty()) tensors.emplace_back(called, parameter.Load()->buffer("values"));
  }
  return tensors;
}

void Folders(const Seeds& seeds) {
  const auto same = [](const std::string& name) { return name; };
  const std::string config = TinyConfig().ToJson();
  const std::string plain = seeds.Made([&](const std::string& path) { return io::WriteSafetensors(path, TinyWeights(same)); });
  seeds.Write("hf_folder", "plain", absl::StrCat(config, kSeparator, kSeparator, kSeparator, plain));

  auto tensors = TinyWeights([](const std::string& name) { return name == kUp ? std::string() : name; });
  const EncodedTensor up = Encode(IntegerScheme(4, 4, false), {8, 8}, std::vector<float>(64, 0.25f)).value();
  for (const auto& [buffer, tensor] : up.buffers) tensors.emplace_back(absl::StrCat(kUp, ".", buffer), tensor);
  for (const char* part : {"lora_A", "lora_B"}) {
    const Shape shape = part[5] == 'A' ? Shape{2, 8} : Shape{8, 2};
    tensors.emplace_back(absl::StrCat("model.layers.0.mlp.gate_proj.", part, ".weight"), Tensor::Zeros(DType::kF32, shape));
  }
  const std::string schemes = absl::StrCat("{\"", kUp, R"(": {"scheme": "format: \"int4\" per: PER_GROUP group_size: 4", "shape": [8, 8]}})");
  const std::string checkpoint =
      seeds.Made([&](const std::string& path) { return io::WriteSafetensors(path, tensors, {{"nibble.schemes", schemes}}); });
  seeds.Write("hf_folder", "checkpoint",
              absl::StrCat(config, kSeparator, R"({"format_version": 1, "note": "n",
 "activations": {"model.layers.0.mlp.up_proj": "format: \"int8\" per: PER_TOKEN dynamic: true"},
 "adapters": {"model.layers.0.mlp.gate_proj": {"rank": 2, "scale": 2}},
 "rotations": {"model.layers.0.mlp.down_proj": 4},
 "caches": {"model.layers.0.self_attn.attention": {"keys": "format: \"fp16\""}}})",
                           kSeparator, kSeparator, checkpoint));
  const std::string shard = seeds.Made([](const std::string& path) { return io::WriteSafetensors(path, {{"a", Tensor::FromFloats({2}, {1, 2})}}); });
  seeds.Write("hf_folder", "shards",
              absl::StrCat(config, kSeparator, kSeparator, R"({"weight_map": {"a": "model-00001-of-00002.safetensors"}})", kSeparator, shard));
}

// GPTQ's settings in a file of their own, which its tools write beside a config.json without
// them. Its linears have 32 inputs at least.
void Gptq(const Seeds& seeds) {
  const std::string down = "model.layers.0.mlp.down_proj";
  LlamaConfig config = TinyConfig();
  config.intermediate_size = 32;
  auto tensors = TinyWeights([&](const std::string& name) { return name == down + ".weight" ? std::string() : name; }, config);
  for (auto& [name, tensor] : tensors) tensor = Tensor::Zeros(tensor.dtype(), tensor.shape());
  tensors.emplace_back(down + ".qweight", Tensor::Zeros(DType::kI32, {4, 8}));
  tensors.emplace_back(down + ".qzeros", Tensor::Zeros(DType::kI32, {1, 1}));
  tensors.emplace_back(down + ".scales", FloatsToDType(DType::kF16, {1, 8}, std::vector<float>(8, 1)));
  const std::string weights = seeds.Made([&](const std::string& path) { return io::WriteSafetensors(path, tensors); });
  seeds.Write("hf_folder", "gptq",
              absl::StrCat(config.ToJson(), kSeparator, kSeparator, kSeparator, weights, kSeparator, R"({"bits": 4, "group_size": -1, "desc_act": false})"));
}

std::string MetaName(const std::string& name) {
  static const std::pair<const char*, const char*> kParts[] = {{"model.embed_tokens", "tok_embeddings"}, {"model.norm", "norm"},
      {"model.layers.0.input_layernorm", "layers.0.attention_norm"}, {"model.layers.0.post_attention_layernorm", "layers.0.ffn_norm"},
      {"model.layers.0.self_attn.q_proj", "layers.0.attention.wq"}, {"model.layers.0.self_attn.k_proj", "layers.0.attention.wk"},
      {"model.layers.0.self_attn.v_proj", "layers.0.attention.wv"}, {"model.layers.0.self_attn.o_proj", "layers.0.attention.wo"},
      {"model.layers.0.mlp.gate_proj", "layers.0.feed_forward.w1"}, {"model.layers.0.mlp.down_proj", "layers.0.feed_forward.w2"},
      {"model.layers.0.mlp.up_proj", "layers.0.feed_forward.w3"}};
  for (const auto& [ours, meta] : kParts) {
    if (name == absl::StrCat(ours, ".weight")) return absl::StrCat(meta, ".weight");
  }
  return "";
}

std::string TorchFile(const Seeds& seeds, const std::vector<std::pair<std::string, Tensor>>& tensors) {
  return seeds.Made([&](const std::string& path) -> absl::Status {
    std::vector<io::TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype(), tensor.shape()});
    NIBBLE_ASSIGN_OR_RETURN(const auto writer, io::TorchWriter::Create(path, specs));
    for (const auto& [name, tensor] : tensors) NIBBLE_RETURN_IF_ERROR(writer->Write(name, tensor));
    return writer->Finish();
  });
}

void Meta(const Seeds& seeds) {
  auto tensors = TinyWeights(MetaName);
  const std::string sizes = R"({"dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "norm_eps": 1e-5, "rope_theta": 500000.0,
 "use_scaled_rope": true)";
  const std::string floats = TorchFile(seeds, tensors);
  seeds.Write("meta_folder", "plain", absl::StrCat(sizes, "}", kSeparator, floats));
  seeds.Write("meta_folder", "many_layers", absl::StrCat(R"({"dim": 8, "n_layers": 16777215, "n_heads": 2})", kSeparator, floats));
  for (size_t i = 0, count = tensors.size(); i < count; ++i) {
    auto& [name, tensor] = tensors[i];
    if (tensor.shape().size() != 2) continue;
    const int64_t groups = name == "tok_embeddings.weight" ? 1 : 2, rows = tensor.dim(0);
    tensor = Tensor::Zeros(DType::kI8, tensor.shape());
    tensors.emplace_back(name.substr(0, name.size() - 6) + "scales", Tensor::FromFloats({rows, groups}, std::vector<float>(rows * groups, 0.5f)));
  }
  seeds.Write("meta_folder", "quantized",
              absl::StrCat(sizes, R"(, "quantization_args": {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 4, "spinquant": true}})",
                           kSeparator, TorchFile(seeds, tensors)));
}

void Training(const Seeds& seeds) {
  TinyTraining training;
  const std::string log = "step,loss,learning_rate,gradient_norm,tokens,seconds,accuracy\n1,5.5,1e-3,0.25,64,0.125,-1\n";
  const std::string checkpoint = seeds.Made([&](const std::string& path) { return training.learner().Save(path, "identity"); });
  seeds.Write("training_checkpoint", "weights", absl::StrCat(log, kSeparator, checkpoint));
  train::LearnedRotations rotations;
  rotations.r1 = ir::SquareMatrix{2, {0, 1, -1, 0}};
  rotations.r2 = {{2, {1, 0, 0, 1}}};
  seeds.Write("training_checkpoint", "rotations",
              absl::StrCat(log, kSeparator, seeds.Made([&](const std::string& path) { return train::WriteRotations(path, rotations); })));
}

void TokenizerExtras(const Seeds& seeds) {
  io::GgufBuilder gguf;
  gguf.Text("tokenizer.chat_template", "{{ messages }}").Flag("tokenizer.ggml.add_eos_token", true);
  gguf.Integer("tokenizer.ggml.padding_token_id", 1).Integer("tokenizer.ggml.eot_token_id", 0xFFFFFFFF).Integer("tokenizer.ggml.bos_token_id", 2);
  seeds.Write("tokenizer_extras", "gguf", gguf.Build());
}

// Of a task of this kind, with two items of which `fill` sets what the kind has.
template <typename Fill>
eval::TaskRecords TaskOf(TaskDescription::Kind kind, const Fill& fill) {
  eval::TaskRecords records;
  records.label = "toy";
  records.description.set_name("toy");
  records.description.set_version("1");
  records.description.set_kind(kind);
  records.categories = {"hard", "soft"};
  records.shots = 2;
  records.window = 8;
  records.items.resize(2);
  for (size_t i = 0; i < records.items.size(); ++i) {
    records.items[i].category = static_cast<int32_t>(i);
    fill(&records.items[i]);
  }
  return records;
}

void RawRecords(const Seeds& seeds) {
  const auto write = [&](const std::string& name, const eval::RawRecords& records) {
    seeds.Write("raw_records", name, eval::ToFileBytes(records).value());
  };
  eval::PerplexityRecords perplexity;
  perplexity.set = "toy";
  perplexity.convention = "gptq window=4 windows=2 bos=none";
  perplexity.predictions = 3;
  perplexity.nll = {1, 2, 3, 4, 5, 6};
  perplexity.targets = {7, 8, 9, 10, 11, 12};
  write("perplexity", perplexity);
  eval::DivergenceRecords divergence;
  divergence.set = perplexity.set;
  divergence.convention = perplexity.convention;
  divergence.arithmetic = SIMULATED;
  divergence.predictions = 3;
  divergence.kl = {0, 0.5f, 1, 1.5f, 2, 2.5f};
  divergence.agree = {1, 0, 1, 1, 1, 0};
  write("divergence", divergence);
  const auto choices = [](eval::ItemResult* item) {
    item->log_likelihoods = {-1, -2};
    item->target_tokens = {1, 2};
    item->bytes = {3, 6};
    item->characters = {2, 5};
    item->gold = 1;
  };
  write("choices", TaskOf(TaskDescription::MULTIPLE_CHOICE, choices));
  write("last_word", TaskOf(TaskDescription::LAST_WORD, choices));
  write("documents", TaskOf(TaskDescription::ROLLING, [](eval::ItemResult* item) {
          item->nll = {1, 2, 3};
          item->targets = {4, 5, 6};
          item->window_tokens = {2, 1};
          item->words = 2;
          item->text_bytes = 11;
        }));
  eval::TaskRecords answers = TaskOf(TaskDescription::EXACT_MATCH, [](eval::ItemResult* item) {
    item->said = "It is 12";
    item->answer = "12";
  });
  TaskDescription::Filter* first = answers.description.add_filter();
  first->set_name("first");
  first->set_regex("^\\w+");
  TaskDescription::Filter* number = answers.description.add_filter();
  number->set_name("number");
  number->set_last_number(true);
  answers.description.set_ignore_case(true);
  NIBBLE_CHECK_OK(eval::MatchAnswers(answers.description, &answers.items));
  write("answers", answers);
}

}  // namespace
}  // namespace nibble::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds FOLDER\n");
    return 2;
  }
  const nibble::fuzz::Seeds seeds(argv[1]);
  nibble::fuzz::Safetensors(seeds);
  nibble::fuzz::Gguf(seeds);
  nibble::fuzz::Llama2c(seeds);
  nibble::fuzz::Torch(seeds);
  nibble::fuzz::Tokenizers(seeds);
  nibble::fuzz::Folders(seeds);
  nibble::fuzz::Gptq(seeds);
  nibble::fuzz::Meta(seeds);
  nibble::fuzz::Training(seeds);
  nibble::fuzz::TokenizerExtras(seeds);
  nibble::fuzz::RawRecords(seeds);
  return 0;
}
