#include "core/io/model_loader.h"

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

namespace nibble::io {
namespace {

constexpr char kSynthetic[] = "synthetic:";

absl::StatusOr<LoadedModel> LoadFolder(const std::string& path) {
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
  return model;
}

absl::StatusOr<LoadedModel> LoadGguf(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  LoadedModel model;
  NIBBLE_ASSIGN_OR_RETURN(model.config, GgufConfig(*file));
  NIBBLE_ASSIGN_OR_RETURN(model.tokenizer, GgufTokenizer(*file));
  model.weights = GgufWeights(file, model.config);
  model.note = GgufNote(*file);
  model.files = {path};
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
  model.source = absl::StrCat(kSynthetic, parts[0], ":", seed);
  model.note = "random weights";
  return model;
}

absl::StatusOr<LoadedModel> LoadFetched(const FetchedModel& fetched) {
  const std::string path = absl::StrCat(CacheDirectory(), "/models/", fetched.file);
  if (FileExists(path)) return LoadGguf(path);
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
      " or a fetched model (", FetchedModels()[0].name, ")"));
}

absl::StatusOr<LoadedModel> Load(const std::string& spec) {
  if (absl::StartsWith(spec, kSynthetic)) return LoadSynthetic(spec);
  for (const FetchedModel& fetched : FetchedModels()) {
    if (spec == fetched.name) return LoadFetched(fetched);
  }
  if (IsDirectory(spec)) return LoadFolder(spec);
  if (absl::EndsWith(spec, ".gguf")) return LoadGguf(spec);
  if (absl::EndsWith(spec, ".bin")) return LoadLlama2c(spec);
  return Unknown(spec);
}

}  // namespace

absl::StatusOr<std::string> LoadedModel::Hash() const {
  if (files.empty()) return source;
  if (files.size() == 1) return Sha256OfFile(files[0]);
  std::string list;
  for (const std::string& file : files) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(file));
    absl::StrAppend(&list, std::filesystem::path(file).filename().string(), " ", hash, "\n");
  }
  return Sha256(list);
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& spec) {
  NIBBLE_ASSIGN_OR_RETURN(LoadedModel model, Load(spec));
  if (model.source.empty()) model.source = spec;
  return model;
}

const std::vector<FetchedModel>& FetchedModels() {
  static const std::vector<FetchedModel>& models = *new std::vector<FetchedModel>{{"smollm2-135m", "smollm2-135m.gguf"}};
  return models;
}

}  // namespace nibble::io
