#include "core/text/sentencepiece_model.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/text/hf_json.h"
#include "core/text/sentencepiece_model.pb.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Change = std::function<void(SentencePieceModel&)>;

constexpr int32_t kFirstByte = 3, kSpace = 259;
constexpr int32_t kA = 260, kB = 261, kC = 262, kAb = 263, kBc = 264, kSpaceA = 265, kAbc = 266;

void AddPiece(SentencePieceModel* model, const std::string& piece, float score, TokenType type) {
  auto* added = model->add_pieces();
  added->set_piece(piece);
  added->set_score(score);
  if (type != TokenType::kNormal) added->set_type(static_cast<int32_t>(type));
}

// Ids from 260 on: a b c ab bc ▁a abc
SentencePieceModel Letters() {
  const SpmVocabulary vocabulary = TinySpm({{"a", -50}, {"b", -51}, {"c", -52},
                                            {"ab", -2}, {"bc", -1}, {"▁a", -3}, {"abc", -4}});
  SentencePieceModel model;
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    AddPiece(&model, vocabulary.pieces[i], vocabulary.scores[i], static_cast<TokenType>(vocabulary.types[i]));
  }
  model.mutable_trainer_spec()->set_model_type(SentencePieceModel::TrainerSpec::BPE);
  model.mutable_trainer_spec()->set_byte_fallback(true);
  model.mutable_normalizer_spec()->set_name("identity");
  model.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  return model;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Read(const Change& change, const std::string& config = "") {
  SentencePieceModel model = Letters();
  change(model);
  return TokenizerFromSentencePiece(model.SerializeAsString(), config, "some/tokenizer.model");
}

std::string Error(absl::StatusCode code, const Change& change, const std::string& config = "") {
  const absl::Status status = Read(change, config).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("some/tokenizer.model: "));
  return std::string(status.message());
}
std::string Invalid(const Change& change, const std::string& config = "") {
  return Error(absl::StatusCode::kInvalidArgument, change, config);
}
std::string Unimplemented(const Change& change, const std::string& config = "") {
  return Error(absl::StatusCode::kUnimplemented, change, config);
}

void Unchanged(SentencePieceModel&) {}

TEST(SentencePieceModel, EncodesAndDecodes) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(Unchanged));
  EXPECT_EQ(tokenizer->vocabulary_size(), 267);
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(kSpaceA, kBc));  // bc, then ▁a
  EXPECT_THAT(tokenizer->Encode("babc c"), ElementsAre(kSpace, kB, kAbc, kSpace, kC));
  EXPECT_THAT(tokenizer->Encode(" a  ab "), ElementsAre(kSpace, kSpaceA, kSpace, kSpace, kAb, kSpace));
  EXPECT_THAT(tokenizer->Encode("aé\n"), ElementsAre(kSpaceA, kFirstByte + 0xC3, kFirstByte + 0xA9, kFirstByte + '\n'));
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre());
  for (const std::string text : {"abc", " a  ab ", "aé\n", ""}) EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

TEST(SentencePieceModel, WithoutTheSpacePrefix) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read([](SentencePieceModel& m) {
                         m.mutable_normalizer_spec()->set_add_dummy_prefix(false);
                       }));
  EXPECT_THAT(tokenizer->Encode("abc a"), ElementsAre(kAbc, kSpaceA));
  EXPECT_THAT(tokenizer->Encode("aa  bc"), ElementsAre(kA, kA, kSpace, kSpace, kBc));
}

// transformers' legacy: false, which text after a token shows.
TEST(SentencePieceModel, OnlyTheStartOfTextGetsASpace) {
  ASSERT_OK_AND_ASSIGN(const auto legacy, Read(Unchanged, R"({"legacy": true})"));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(Unchanged, R"({"legacy": false})"));
  EXPECT_EQ(tokenizer->Encode("a"), legacy->Encode("a"));
  EXPECT_EQ(tokenizer->Encode(" a"), legacy->Encode("a"));
  EXPECT_NE(tokenizer->Encode("<s>a"), legacy->Encode("<s>a"));
}

TEST(SentencePieceModel, WithoutBytesAnUnknownCharacterIsTheUnknownPiece) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read([](SentencePieceModel& m) {
                         m.mutable_pieces()->DeleteSubrange(kFirstByte, 256);
                         m.mutable_trainer_spec()->set_byte_fallback(false);
                       }));
  EXPECT_THAT(tokenizer->Encode("bé"), ElementsAre(kSpace - 256, kB - 256, 0));
}

TEST(SentencePieceModel, SpecialIdsAndTheConfig) {
  ASSERT_OK_AND_ASSIGN(auto tokenizer, Read(Unchanged));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  const std::string config = R"({"add_bos_token": false, "bos_token": {"content": "<s>"}, "eos_token": "<unk>", "pad_token": null,
                                 "added_tokens_decoder": {"0": {"content": "<unk>"}, "1": {"content": "<s>"}}})";
  ASSERT_OK_AND_ASSIGN(tokenizer, Read(Unchanged, config));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 0);
  EXPECT_FALSE(tokenizer->adds_bos());
  ASSERT_OK_AND_ASSIGN(tokenizer, Read([](SentencePieceModel& m) {
                         m.mutable_trainer_spec()->set_bos_id(-1);
                         m.mutable_trainer_spec()->set_eos_id(-1);
                       }));
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->eos_id(), std::nullopt);
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(SentencePieceModel, ToJsonReadsBackEqual) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Read(Unchanged));
  ASSERT_OK_AND_ASSIGN(const auto back, TokenizerFromJson(tokenizer->ToJson(), tokenizer->ToConfigJson(), "back"));
  EXPECT_EQ(back->ToJson(), tokenizer->ToJson());
  EXPECT_TRUE(back->adds_bos());
  for (const char* text : {"abc", "babc ab</s>  c", "é"}) EXPECT_EQ(back->Encode(text), tokenizer->Encode(text)) << text;
}

TEST(SentencePieceModel, WhatIsNotSupportedIsNamed) {
  using Spec = SentencePieceModel::TrainerSpec;
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_trainer_spec()->set_model_type(Spec::UNIGRAM); }), HasSubstr("UNIGRAM"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_trainer_spec()->clear_model_type(); }), HasSubstr("UNIGRAM"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_trainer_spec()->set_model_type(Spec::WORD); }), HasSubstr("WORD"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_trainer_spec()->set_treat_whitespace_as_suffix(true); }),
              HasSubstr("treat_whitespace_as_suffix"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_normalizer_spec()->set_name("nmt_nfkc"); }), HasSubstr("'nmt_nfkc'"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_normalizer_spec()->set_precompiled_charsmap("xyz"); }),
              HasSubstr("precompiled_charsmap of 3 bytes"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_normalizer_spec()->clear_remove_extra_whitespaces(); }),
              HasSubstr("remove_extra_whitespaces"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_normalizer_spec()->set_escape_whitespaces(false); }),
              HasSubstr("escape_whitespaces"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_denormalizer_spec()->set_precompiled_charsmap("x"); }),
              HasSubstr("denormalizer"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_pieces(kAb)->set_type(5); }), HasSubstr("piece 263 ('ab'): unused pieces"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_pieces(kAb)->set_type(4); }), HasSubstr("piece 263 ('ab'): user-defined pieces"));
  EXPECT_THAT(Unimplemented([](auto& m) { m.mutable_pieces(kAbc)->set_piece("abd"); }),
              AllOf(HasSubstr("piece 266 ('abd')"), HasSubstr("the character 'd'")));
  EXPECT_THAT(Unimplemented(Unchanged, R"({"added_tokens_decoder": {"267": {"content": "<new>"}}})"),
              AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("'<new>'")));
}

TEST(SentencePieceModel, BadModelsAreErrors) {
  EXPECT_THAT(Invalid([](auto& m) { m.clear_pieces(); }), HasSubstr("0 pieces"));
  EXPECT_THAT(Invalid([](auto& m) { m.clear_trainer_spec(); }), HasSubstr("no trainer_spec"));
  EXPECT_THAT(Invalid([](auto& m) { m.clear_normalizer_spec(); }), HasSubstr("no normalizer_spec"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces(kA)->clear_piece(); }), HasSubstr("piece 260 (''): a piece may not be empty"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces(kA)->set_piece("b"); }), HasSubstr("both 'b'"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces(kA)->set_piece("\xFF"); }), HasSubstr("token 260 is not UTF-8"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces(kAb)->set_type(7); }), HasSubstr("type 7"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces(kA)->set_score(std::numeric_limits<float>::quiet_NaN()); }),
              HasSubstr("not a number"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_byte_fallback(false); }), HasSubstr("byte_fallback is false"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces()->DeleteSubrange(kFirstByte, 256); }),
              HasSubstr("byte_fallback is true"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_pieces()->DeleteSubrange(kFirstByte + 1, 1); }), HasSubstr("<0x01> is missing"));
}

TEST(SentencePieceModel, BadIdsAreErrors) {
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_unk_id(267); }), HasSubstr("unknown piece id 267"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_bos_id(-2); }), HasSubstr("BOS id -2"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_eos_id(1 << 30); }), HasSubstr("EOS id 1073741824"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_bos_id(kA); }), HasSubstr("BOS id 260 is 'a' of type 1"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_unk_id(1); }), HasSubstr("'<s>' of type 3, expected type 2"));
  EXPECT_THAT(Invalid([](auto& m) { m.mutable_trainer_spec()->set_bos_id(-1); }, R"({"add_bos_token": true})"),
              HasSubstr("there is no BOS id"));
  EXPECT_THAT(Invalid(Unchanged, R"({"eos_token": "<end>"})"), AllOf(HasSubstr("eos_token"), HasSubstr("'<end>'")));
  EXPECT_THAT(Invalid(Unchanged, "{"), HasSubstr("tokenizer_config.json: not valid JSON"));
}

TEST(SentencePieceModel, OtherFilesAreErrors) {
  const std::string claims_a_piece_of_2_gib = "\x0A\xFF\xFF\xFF\xFF\x07";
  for (const std::string& bytes : {std::string(), std::string("{}"), std::string(1000, '\0'), std::string("IQ== 0\nIg== 1\n"),
                                   claims_a_piece_of_2_gib}) {
    const absl::Status status = TokenizerFromSentencePiece(bytes, "", "x").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("SentencePiece model"));
  }
}

TEST(SentencePieceModel, EveryCutIsAnError) {
  const std::string bytes = Letters().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(TokenizerFromSentencePiece(absl::string_view(bytes).substr(0, size), "", "x").ok()) << size;
  }
}

TEST(SentencePieceModel, ChangedBytesNeverCrash) {
  const std::string bytes = Letters().SerializeAsString();
  Rng rng(1);
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 + rng.Below(255)));
    const auto tokenizer = TokenizerFromSentencePiece(damaged, "", "x");
    if (tokenizer.ok()) (*tokenizer)->Decode((*tokenizer)->Encode("abc <s>\xFF é  cab"));
  }
}

}  // namespace
}  // namespace nibble::text
