#include "core/text/hf_json.h"

#include <functional>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/testing.h"
#include "core/text/testing/tiny_vocabulary.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json ByteLevelDocument() { return Json::parse(MakeBpe(TinyBpe({{"l", "o"}, {"lo", "w"}})).value()->ToJson()); }
Json SpmDocument() {
  return Json::parse(MakeSpm(TinySpm({{"l", -9}, {"o", -9}, {"lo", -1}, {"▁lo", -2}})).value()->ToJson());
}

absl::Status Read(const Json& document, const Json& config = Json::object()) {
  return TokenizerFromJson(document.dump(), config.dump(), "some/tokenizer.json").status();
}

// The error of a byte-level document that `change` has changed.
std::string Error(absl::StatusCode code, const std::function<void(Json&)>& change) {
  Json document = ByteLevelDocument();
  change(document);
  const absl::Status status = Read(document);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("some/tokenizer.json"));
  return std::string(status.message());
}
std::string Invalid(const std::function<void(Json&)>& change) {
  return Error(absl::StatusCode::kInvalidArgument, change);
}
std::string Unimplemented(const std::function<void(Json&)>& change) {
  return Error(absl::StatusCode::kUnimplemented, change);
}

TEST(HfJson, MergesMayBePairs) {
  Json document = ByteLevelDocument();
  document["model"]["merges"] = Json::array({Json::array({"l", "o"}), Json::array({"lo", "w"})});
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromJson(document.dump(), "", "x"));
  EXPECT_THAT(tokenizer->Encode("low"), ElementsAre(257));
}

TEST(HfJson, AddedTokensMayBeOutsideTheModelsVocabulary) {
  Json document = ByteLevelDocument();
  document["added_tokens"].push_back({{"id", 259}, {"content", "<x>"}, {"special", false}});
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromJson(document.dump(), "", "x"));
  EXPECT_EQ(tokenizer->vocabulary_size(), 260);
  EXPECT_THAT(tokenizer->Encode("lo<x>"), ElementsAre(256, 259));
}

TEST(HfJson, BosAndEosFromTheConfig) {
  const std::string json = ByteLevelDocument().dump();
  ASSERT_OK_AND_ASSIGN(auto tokenizer, TokenizerFromJson(json, R"({"bos_token": "a", "eos_token": {"content": "b"},
                                                                  "add_bos_token": true})", "x"));
  EXPECT_EQ(tokenizer->bos_id(), 'a');
  EXPECT_EQ(tokenizer->eos_id(), 'b');
  EXPECT_TRUE(tokenizer->adds_bos());
  ASSERT_OK_AND_ASSIGN(tokenizer, TokenizerFromJson(json, R"({"bos_token": null})", "x"));
  EXPECT_EQ(tokenizer->bos_id(), 258);
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(HfJson, BosFromATemplateWithinASequence) {
  Json document = ByteLevelDocument();
  document["post_processor"] = Json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {
      "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>"}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [258], "tokens": ["<|end|>"]}}}]})");
  ASSERT_OK_AND_ASSIGN(auto tokenizer, TokenizerFromJson(document.dump(), "", "x"));
  EXPECT_EQ(tokenizer->bos_id(), 258);
  EXPECT_EQ(tokenizer->eos_id(), std::nullopt);
  EXPECT_TRUE(tokenizer->adds_bos());
  ASSERT_OK_AND_ASSIGN(tokenizer, TokenizerFromJson(document.dump(), R"({"add_bos_token": false})", "x"));
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(HfJson, ScoresOfASentencePieceModelAreTheRanks) {
  Json document = SpmDocument();
  document["model"]["merges"] = {"▁ l", "l o", "▁l o"};
  document["model"]["vocab"]["▁l"] = 264;
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromJson(document.dump(), "", "x"));
  // "▁l" goes first; with "▁ lo" gone, "▁lo" comes from it.
  EXPECT_THAT(tokenizer->Encode("lo lol"), ElementsAre(263, 263, 260));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("lo lol")), "lo lol");
}

// Spaces before text as Metaspace puts them: not where it begins with one, and with "first"
// not after a token in the text.
TEST(HfJson, MetaspacePutsSpacesBeforeText) {
  const auto made = [](const Json& step) {
    Json document = SpmDocument();
    document["normalizer"] = nullptr;
    document["pre_tokenizer"] = step;
    return TokenizerFromJson(document.dump(), "", "x");
  };
  const auto metaspace = [](const char* scheme) {
    return Json{{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", false}};
  };
  ASSERT_OK_AND_ASSIGN(const auto plain, TokenizerFromJson(SpmDocument().dump(), "", "x"));
  const std::string token = "<s>";
  const std::vector<int32_t> word = plain->Encode("lo");
  for (const char* scheme : {"always", "first", "never"}) {
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, made(metaspace(scheme)));
    ASSERT_OK_AND_ASSIGN(const auto again, TokenizerFromJson(tokenizer->ToJson(), "", "x"));
    for (const char* text : {"lo", " lo", "lo<s>lo", "<s>lo", "<s> lo lo"}) EXPECT_EQ(again->Encode(text), tokenizer->Encode(text)) << scheme << text;
    EXPECT_EQ(tokenizer->Encode("lo") == word, scheme != std::string("never"));
    EXPECT_EQ(tokenizer->Encode(" lo"), word) << scheme;
    EXPECT_EQ(tokenizer->Encode("<s>lo") == plain->Encode("<s>lo"), scheme == std::string("always"));
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("lo<s>lo")), "lo<s>lo") << scheme;
  }
  Json old = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}, {"split", false}};
  EXPECT_EQ(made(old).value()->Encode("lo"), word);
  old["split"] = true;
  EXPECT_THAT(std::string(made(old).status().message()), HasSubstr("split"));
  EXPECT_THAT(std::string(made(metaspace("last")).status().message()), HasSubstr("last"));
}

TEST(HfJson, APieceThatNoMergeGivesIsNotProduced) {
  Json document = SpmDocument();
  document["model"]["merges"] = {"l o"};
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromJson(document.dump(), "", "x"));
  EXPECT_THAT(tokenizer->Encode("lo"), ElementsAre(259, 262));
}

TEST(HfJson, WhatIsNotSupportedIsNamed) {
  EXPECT_THAT(Unimplemented([](Json& d) { d["model"]["type"] = "Unigram"; }), HasSubstr("'Unigram'"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["model"]["dropout"] = 0.1; }), HasSubstr("dropout"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }),
              HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["normalizer"] = {{"type", "NFC"}}; }), HasSubstr("[NFC]"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["pre_tokenizer"] = {{"type", "Metaspace"}}; }), HasSubstr("Metaspace"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["pre_tokenizer"] = nullptr; }), HasSubstr("pre_tokenizer []"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["pre_tokenizer"]["add_prefix_space"] = true; }), HasSubstr("ByteLevel"));
  EXPECT_THAT(Unimplemented([](Json& d) {
                d["pre_tokenizer"] = Json::parse(R"({"type": "Sequence", "pretokenizers": [{"type": "Split",
                    "pattern": {"Regex": "a+"}, "behavior": "Isolated"}, {"type": "ByteLevel"}]})");
              }),
              HasSubstr("[Split by 'a+', ByteLevel]"));
  EXPECT_THAT(Unimplemented([](Json& d) { d["added_tokens"][0]["lstrip"] = true; }),
              AllOf(HasSubstr("<|end|>"), HasSubstr("lstrip")));
  EXPECT_THAT(Unimplemented([](Json& d) { d["model"]["byte_fallback"] = true; }), HasSubstr("byte_fallback"));
}

TEST(HfJson, MalformedDocumentsAreErrors) {
  EXPECT_FALSE(TokenizerFromJson("{", "", "x").ok());
  EXPECT_FALSE(TokenizerFromJson("", "", "x").ok());
  EXPECT_FALSE(TokenizerFromJson("[]", "", "x").ok());
  EXPECT_FALSE(TokenizerFromJson(ByteLevelDocument().dump(), "{", "x").ok());
  Invalid([](Json& d) { d.erase("model"); });
  Invalid([](Json& d) { d["model"]["vocab"] = 3; });
  Invalid([](Json& d) { d["model"]["merges"] = "l o"; });
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["merges"][1] = 5; }), HasSubstr("merges[1]"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["merges"][1] = "low"; }), HasSubstr("'low'"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["merges"][1] = "a b"; }), HasSubstr("the result"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["vocab"]["low"] = -1; }), HasSubstr("'low'"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["vocab"]["low"] = "x"; }), HasSubstr("'low'"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["vocab"]["low"] = 500; }), HasSubstr("gap"));
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["vocab"]["low"] = 3; }), HasSubstr("both have id 3"));
  EXPECT_THAT(Invalid([](Json& d) { d["added_tokens"][0]["id"] = 3; }), HasSubstr("'<|end|>' has id 3"));
  EXPECT_THAT(Invalid([](Json& d) { d["added_tokens"][0].erase("content"); }), HasSubstr("added_tokens[0]"));
  Invalid([](Json& d) { d["added_tokens"] = 1; });
  EXPECT_THAT(Invalid([](Json& d) { d["model"]["unk_token"] = "<nope>"; }), HasSubstr("'<nope>'"));
  EXPECT_THAT(std::string(Read(ByteLevelDocument(), {{"bos_token", "<nope>"}}).message()),
              AllOf(HasSubstr("bos_token"), HasSubstr("'<nope>'")));
  EXPECT_FALSE(Read(ByteLevelDocument(), {{"eos_token", 5}}).ok());
}

TEST(HfJson, EveryMemberMayBeOfAnyType) {
  for (const Json& document : {ByteLevelDocument(), SpmDocument()}) {
    const Json flat = document.flatten();
    int count = 0;
    for (const auto& [path, value] : flat.items()) {
      // All paths outside the vocabulary and a few within it.
      if (path.rfind("/model/vocab/", 0) == 0 && ++count > 3) continue;
      for (Json::json_pointer pointer(path); !pointer.empty(); pointer.pop_back()) {
        for (const Json& other : {Json(), Json(1), Json("x"), Json(true), Json::array({1}), Json::object({{"a", 1}})}) {
          Json changed = document;
          changed[pointer] = other;
          Read(changed).IgnoreError();
        }
        if (pointer.parent_pointer().to_string() == "/model") break;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::text
