#include "core/text/sentencepiece_model.h"

#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/text/json_parts.h"
#include "core/text/sentencepiece.h"
#include "core/text/sentencepiece_model.pb.h"
#include "core/text/utf8.h"
#include "core/text/vocabulary.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;
using TrainerSpec = SentencePieceModel::TrainerSpec;
using NormalizerSpec = SentencePieceModel::NormalizerSpec;

absl::StatusOr<SentencePieceModel> Parse(absl::string_view bytes) {
  SentencePieceModel model;
  if (bytes.size() > std::numeric_limits<int>::max() ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError(absl::StrCat(bytes.size(), " bytes that are no SentencePiece model"));
  }
  // A file that is cut between two fields still parses.
  if (model.pieces().empty() || !model.has_trainer_spec() || !model.has_normalizer_spec()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a SentencePiece model with pieces, trainer_spec and normalizer_spec, got ",
                     model.pieces_size(), " pieces, ", model.has_trainer_spec() ? "a" : "no", " trainer_spec and ",
                     model.has_normalizer_spec() ? "a" : "no", " normalizer_spec"));
  }
  return model;
}

absl::Status CheckTrainer(const TrainerSpec& spec) {
  if (spec.model_type() != TrainerSpec::BPE) {
    return absl::UnimplementedError(
        absl::StrCat("the model type ", TrainerSpec::ModelType_Name(spec.model_type()), " is not supported; BPE is"));
  }
  if (spec.treat_whitespace_as_suffix()) {
    return absl::UnimplementedError("treat_whitespace_as_suffix is not supported");
  }
  return absl::OkStatus();
}

absl::Status CheckNormalizer(const NormalizerSpec& spec) {
  if (!spec.name().empty() && spec.name() != "identity") {
    return absl::UnimplementedError(
        absl::StrCat("the normalizer ", Quoted(spec.name()), " is not supported; identity is"));
  }
  if (!spec.precompiled_charsmap().empty()) {
    return absl::UnimplementedError(absl::StrCat("the normalizer has a precompiled_charsmap of ",
                                                 spec.precompiled_charsmap().size(), " bytes; none is supported"));
  }
  if (spec.remove_extra_whitespaces()) {
    return absl::UnimplementedError("remove_extra_whitespaces is not supported; texts keep their spaces");
  }
  if (!spec.escape_whitespaces()) {
    return absl::UnimplementedError("a model without escape_whitespaces is not supported");
  }
  return absl::OkStatus();
}

absl::Status CheckSpecs(const SentencePieceModel& model) {
  NIBBLE_RETURN_IF_ERROR(CheckTrainer(model.trainer_spec()));
  NIBBLE_RETURN_IF_ERROR(CheckNormalizer(model.normalizer_spec()));
  if (!model.denormalizer_spec().precompiled_charsmap().empty()) {
    return absl::UnimplementedError("a denormalizer with a precompiled_charsmap is not supported");
  }
  return absl::OkStatus();
}

absl::Status CheckPiece(const SentencePieceModel::Piece& piece) {
  const auto type = static_cast<TokenType>(piece.type());
  if (piece.piece().empty()) return absl::InvalidArgumentError("a piece may not be empty");
  // SentencePiece merges through unused pieces and cuts them up afterwards.
  if (type == TokenType::kUnused) return absl::UnimplementedError("unused pieces are not supported");
  // MakeSpm puts a prefix after each of them and takes their spaces differently.
  if (type == TokenType::kUserDefined) return absl::UnimplementedError("user-defined pieces are not supported");
  return absl::OkStatus();
}

absl::Status AddPiece(const SentencePieceModel::Piece& piece, SpmVocabulary* spm) {
  const absl::Status status = CheckPiece(piece);
  if (!status.ok()) {
    return Annotate(status, absl::StrCat("piece ", spm->pieces.size(), " (", Quoted(piece.piece()), ")"));
  }
  spm->pieces.push_back(piece.piece());
  spm->scores.push_back(piece.score());
  spm->types.push_back(piece.type());
  return absl::OkStatus();
}

bool IsNormal(const SpmVocabulary& spm, int32_t id) { return spm.types[id] == static_cast<int32_t>(TokenType::kNormal); }

// The piece's first character that is no normal piece itself, or "".
absl::string_view FindOtherCharacter(absl::string_view piece, const SpmVocabulary& spm, const TokenIndex& index) {
  while (!piece.empty()) {
    const absl::string_view character = piece.substr(0, Utf8CharacterLength(piece));
    const auto it = index.find(character);
    if (it == index.end() || !IsNormal(spm, it->second)) return character;
    piece.remove_prefix(character.size());
  }
  return "";
}

// SentencePiece merges a character that is no piece, MakeSpm's tokenizer does not. The
// trainer writes no piece where that matters.
absl::Status CheckCharacters(const SpmVocabulary& spm, const TokenIndex& index) {
  for (size_t id = 0; id < spm.pieces.size(); ++id) {
    if (!IsNormal(spm, static_cast<int32_t>(id))) continue;
    const absl::string_view character = FindOtherCharacter(spm.pieces[id], spm, index);
    if (character.empty()) continue;
    return absl::UnimplementedError(absl::StrCat("piece ", id, " (", Quoted(spm.pieces[id]), ") has the character ",
                                                 Quoted(character), ", which is no piece; this is not supported"));
  }
  return absl::OkStatus();
}

absl::Status CheckBytes(const SpmVocabulary& spm, bool byte_fallback) {
  bool has_bytes = false;
  for (const int32_t type : spm.types) has_bytes = has_bytes || type == static_cast<int32_t>(TokenType::kByte);
  if (has_bytes == byte_fallback) return absl::OkStatus();
  return absl::InvalidArgumentError(byte_fallback ? "byte_fallback is true, but there are no byte pieces"
                                                  : "byte_fallback is false, but there are byte pieces");
}

// -1 stands for no such piece.
absl::StatusOr<std::optional<int32_t>> SpecialId(absl::string_view what, int32_t id, TokenType type,
                                                 const SpmVocabulary& spm) {
  if (id == -1) return std::optional<int32_t>();
  NIBBLE_RETURN_IF_ERROR(CheckId(what, id, spm.pieces.size()));
  if (spm.types[id] == static_cast<int32_t>(type)) return std::optional<int32_t>(id);
  return absl::InvalidArgumentError(absl::StrCat("the ", what, " id ", id, " is ", Quoted(spm.pieces[id]), " of type ",
                                                 spm.types[id], ", expected type ", static_cast<int32_t>(type)));
}

// Tokens that tokenizer_config.json adds to the model's would be missed in texts.
absl::Status CheckAddedTokensDecoder(const Json& config, const TokenIndex& index) {
  for (const Json& entry : Member(config, "added_tokens_decoder")) {
    const absl::Status status = FindToken(entry, index, "an entry of added_tokens_decoder").status();
    if (!status.ok()) return absl::UnimplementedError(absl::StrCat("tokenizer_config.json: ", status.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<BosAndEos> ReadIds(const TrainerSpec& trainer, const Json& config, const TokenIndex& index,
                                  const SpmVocabulary& spm) {
  BosAndEos ids;
  NIBBLE_ASSIGN_OR_RETURN(ids.bos, SpecialId("BOS", trainer.bos_id(), TokenType::kControl, spm));
  NIBBLE_ASSIGN_OR_RETURN(ids.eos, SpecialId("EOS", trainer.eos_id(), TokenType::kControl, spm));
  ids.add_bos = ids.bos.has_value();
  NIBBLE_RETURN_IF_ERROR(ReadConfig(config, index, &ids));
  NIBBLE_RETURN_IF_ERROR(CheckAddedTokensDecoder(config, index));
  return ids;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Read(absl::string_view bytes, absl::string_view config_json_or_empty) {
  NIBBLE_ASSIGN_OR_RETURN(const SentencePieceModel model, Parse(bytes));
  NIBBLE_RETURN_IF_ERROR(CheckSpecs(model));
  const TrainerSpec& trainer = model.trainer_spec();
  SpmVocabulary spm;
  spm.add_space_prefix = model.normalizer_spec().add_dummy_prefix();
  for (const auto& piece : model.pieces()) NIBBLE_RETURN_IF_ERROR(AddPiece(piece, &spm));
  NIBBLE_ASSIGN_OR_RETURN(const TokenIndex index, IndexTokens(spm.pieces));
  NIBBLE_RETURN_IF_ERROR(CheckCharacters(spm, index));
  NIBBLE_RETURN_IF_ERROR(CheckBytes(spm, trainer.byte_fallback()));
  NIBBLE_ASSIGN_OR_RETURN(spm.unk_id, SpecialId("unknown piece", trainer.unk_id(), TokenType::kUnknown, spm));
  NIBBLE_ASSIGN_OR_RETURN(const Json config, ParseConfig(config_json_or_empty));
  NIBBLE_ASSIGN_OR_RETURN(const BosAndEos ids, ReadIds(trainer, config, index, spm));
  const Json& legacy = Member(config, "legacy");
  // As transformers makes its tokenizer.json of it.
  if (legacy.is_boolean() && !legacy.get<bool>()) spm.prefix_start_only = spm.prefix_unless_space = true;
  spm.bos_id = ids.bos;
  spm.eos_id = ids.eos;
  spm.add_bos = ids.add_bos;
  return MakeSpm(std::move(spm));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromSentencePiece(absl::string_view tokenizer_model,
                                                                      absl::string_view tokenizer_config_json_or_empty,
                                                                      absl::string_view source_path) {
  auto tokenizer = Read(tokenizer_model, tokenizer_config_json_or_empty);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), source_path);
  return tokenizer;
}

}  // namespace nibble::text
