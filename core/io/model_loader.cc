#include "core/io/model_loader.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/io/gguf_model.h"
#include "core/io/hf_folder.h"
#include "core/io/llama2c.h"
#include "core/io/meta_folder.h"
#include "core/tensor/half.h"

namespace nibble::io {
namespace {

constexpr char kSynthetic[] = "synthetic:";
constexpr char kDecoded[] = "decoded:";

// Quantized parameters decoded and rounded to BF16, the baseline's type; others as they
// are.
class DecodedStore : public WeightStore {
 public:
  explicit DecodedStore(std::shared_ptr<const WeightStore> stored) : stored_(std::move(stored)) {}

  bool Has(const std::string& name) const override { return stored_->Has(name); }

  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    NIBBLE_ASSIGN_OR_RETURN(EncodedTensor tensor, stored_->Load(name));
    if (IsFloatFormat(tensor.scheme)) return tensor;
    Tensor decoded = Tensor::Zeros(DType::kBF16, tensor.shape);
    uint16_t* out = decoded.mutable_as<uint16_t>().data();
    std::vector<float> row(tensor.cols());
    for (int64_t r = 0; r < tensor.rows(); ++r) {
      DecodeRows(tensor, r, r + 1, row.data());
      out = std::transform(row.begin(), row.end(), out, FloatToBf16);
    }
    return WrapFloats(std::move(decoded));
  }

 private:
  const std::shared_ptr<const WeightStore> stored_;
};

// Of weights in BF16.
int64_t BytesInMemory(const LlamaConfig& config) { return 2 * config.ParameterCount(); }

int64_t BytesOf(const std::vector<std::string>& files) {
  int64_t bytes = 0;
  for (const std::string& file : files) {
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

absl::StatusOr<LoadedModel> LoadFolder(const std::string& path, bool decoded) {
  const bool has_slash = path.size() > 1 && path.back() == '/';
  const std::string folder = has_slash ? path.substr(0, path.size() - 1) : path;
  NIBBLE_ASSIGN_OR_RETURN(HfModel read, IsMetaFolder(folder) ? ReadMetaFolder(folder) : ReadHfFolder(folder));
  LoadedModel model;
  model.config = std::move(read.config);
  model.weights = std::move(read.weights);
  model.tokenizer = std::move(read.tokenizer);
  model.attachments = std::move(read.attachments);
  model.pipeline = std::move(read.pipeline);
  model.note = std::move(read.note);
  model.files = std::move(read.files);
  if (!decoded) return model;
  model.weight_bytes = BytesInMemory(model.config);
  model.weights = std::make_shared<DecodedStore>(std::move(model.weights));
  model.attachments.activations.clear();
  model.attachments.caches.clear();
  absl::StrAppend(&model.note, model.note.empty() ? "" : "; ", "quantized weights decoded to BF16, schemes of activations left out");
  model.reading = "decoded";
  return model;
}

absl::StatusOr<LoadedModel> LoadGguf(const std::string& path, bool decoded) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  LoadedModel model;
  NIBBLE_ASSIGN_OR_RETURN(model.config, GgufConfig(*file));
  NIBBLE_ASSIGN_OR_RETURN(model.tokenizer, GgufTokenizer(*file));
  model.weights = GgufWeights(file, model.config);
  model.files = {path};
  model.note = GgufTokenizerNote(*file);
  const std::string types = GgufQuantizedTypes(*file);
  if (types.empty()) return model;
  const std::string stored = decoded ? absl::StrCat("decoded from ", types, " to BF16") : absl::StrCat("stored as ", types);
  model.note = model.note.empty() ? stored : absl::StrCat(stored, "; ", model.note);
  if (decoded) {
    model.weight_bytes = BytesInMemory(model.config);
    model.weights = std::make_shared<DecodedStore>(std::move(model.weights));
  } else {
    model.reading = "as stored";
  }
  return model;
}

absl::StatusOr<LoadedModel> LoadLlama2c(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(Llama2cModel read, ReadLlama2c(path));
  LoadedModel model;
  model.config = std::move(read.config);
  model.weights = std::move(read.weights);
  model.tokenizer = std::move(read.tokenizer);
  model.files = {path};
  if (!read.tokenizer_path.empty()) model.files.push_back(read.tokenizer_path);
  return model;
}

absl::StatusOr<LoadedModel> LoadSynthetic(const std::string& spec) {
  const std::vector<std::string> parts = absl::StrSplit(absl::StripPrefix(spec, kSynthetic), ':');
  uint64_t seed = 0;
  if (parts.size() > 2 || (parts.size() == 2 && !absl::SimpleAtoi(parts[1], &seed))) {
    return absl::InvalidArgumentError(absl::StrCat("model '", spec, "': expected synthetic:<preset>[:<seed>], seed 0 to 2^64 - 1"));
  }
  LoadedModel model;
  auto config = ShapePreset(parts[0]);
  if (!config.ok()) return absl::InvalidArgumentError(absl::StrCat("model '", spec, "': ", config.status().message()));
  model.config = *std::move(config);
  model.weights = SyntheticWeights(model.config, seed);
  model.weight_bytes = BytesInMemory(model.config);
  model.source = absl::StrCat(kSynthetic, parts[0], ":", seed);
  model.note = "random weights";
  return model;
}

absl::StatusOr<LoadedModel> LoadFetched(const FetchedModel& fetched) {
  const std::string path = absl::StrCat(CacheDirectory(), "/models/", fetched.file);
  if (FileExists(path)) return LoadGguf(path, true);
  return absl::NotFoundError(
      absl::StrCat("model '", fetched.name, "' is not at ", path, "; run ./nibble fetch ", fetched.name));
}

absl::Status Unknown(const std::string& spec) {
  std::vector<std::string> known;
  for (const FetchedModel& fetched : FetchedModels()) known.push_back(fetched.name);
  for (const std::string& preset : ShapePresetNames()) {
    if (spec == preset) {
      return absl::InvalidArgumentError(absl::StrCat("model '", spec, "' is a shape without weights; did you mean '", kSynthetic, spec,
                                                     "' (random weights)?"));
    }
    known.push_back(absl::StrCat(kSynthetic, preset));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no model '", spec, "'", DidYouMean(spec, known), FileExists(spec) ? " The file is neither .gguf nor .bin." : "",
      " A model is a Hugging Face or Nibble folder, a .gguf file, a llama2.c .bin file, synthetic:<preset>[:<seed>]",
      " or a fetched model (", FetchedModels()[0].name, "), each with decoded: before it to have quantized weights in floating point"));
}

absl::StatusOr<LoadedModel> Load(std::string spec) {
  const bool decoded = absl::StartsWith(spec, kDecoded);
  if (decoded) spec.erase(0, std::strlen(kDecoded));
  if (absl::StartsWith(spec, kSynthetic)) return LoadSynthetic(spec);
  for (const FetchedModel& fetched : FetchedModels()) {
    if (spec == fetched.name) return LoadFetched(fetched);
  }
  if (IsDirectory(spec)) return LoadFolder(spec, decoded);
  if (absl::EndsWith(spec, ".gguf")) return LoadGguf(spec, decoded);
  if (absl::EndsWith(spec, ".bin")) return LoadLlama2c(spec);
  return Unknown(spec);
}

}  // namespace

absl::StatusOr<std::string> LoadedModel::Hash() const {
  if (files.empty()) return source;
  if (files.size() == 1 && reading.empty()) return Sha256OfFile(files[0]);
  std::string list = reading.empty() ? "" : reading + "\n";
  for (const std::string& file : files) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(file));
    absl::StrAppend(&list, std::filesystem::path(file).filename().string(), " ", hash, "\n");
  }
  return Sha256(list);
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& spec) {
  NIBBLE_ASSIGN_OR_RETURN(LoadedModel model, Load(spec));
  if (model.source.empty()) model.source = spec;
  if (model.weight_bytes == 0) model.weight_bytes = BytesOf(model.files);
  return model;
}

const std::vector<FetchedModel>& FetchedModels() {
  static const std::vector<FetchedModel>& models = *new std::vector<FetchedModel>{{"smollm2-135m", "smollm2-135m.gguf"}};
  return models;
}

}  // namespace nibble::io
