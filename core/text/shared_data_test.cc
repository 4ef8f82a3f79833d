// The tokenizers over real vocabularies, against ids that other programs gave.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/testing.h"
#include "core/text/hf_json.h"
#include "core/text/llama2c_tokenizer.h"
#include "core/text/testing/gguf_vocabulary.h"
#include "core/text/tiktoken.h"
#include "core/text/tokenizer.h"

namespace nibble::text {
namespace {

using Json = nlohmann::json;

std::string Shared(absl::string_view path) { return absl::StrCat(SharedDir(), "/", path); }
std::string Contents(absl::string_view path) { return ReadFile(Shared(path)).value(); }
Json SharedJson(absl::string_view path) { return Json::parse(Contents(path)); }

std::string Hash(const std::vector<int32_t>& ids) { return Sha256(BytesOf(ids)); }

void ExpectCases(const Tokenizer& tokenizer, const std::string& column) {
  const Json cases = SharedJson("tokenizers/expected.json")["cases"];
  EXPECT_EQ(cases.size(), 57u);
  for (const Json& one : cases) {
    const std::string text = one["text"].get<std::string>();
    const auto ids = one[column].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.Encode(text), ids) << text;
    EXPECT_EQ(tokenizer.Decode(ids), text);
  }
}

void ExpectFile(const Tokenizer& tokenizer, absl::string_view path, size_t count, const std::string& hash) {
  const std::string text = Contents(path);
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  EXPECT_EQ(ids.size(), count);
  EXPECT_EQ(Hash(ids), hash);
  EXPECT_EQ(tokenizer.Decode(ids), text);
}

void ExpectEqualOn(const Tokenizer& a, const Tokenizer& b, absl::string_view text) {
  EXPECT_EQ(a.vocabulary_size(), b.vocabulary_size());
  EXPECT_EQ(a.bos_id(), b.bos_id());
  EXPECT_EQ(a.eos_id(), b.eos_id());
  EXPECT_EQ(a.adds_bos(), b.adds_bos());
  EXPECT_EQ(Hash(a.Encode(text)), Hash(b.Encode(text)));
}

std::unique_ptr<Tokenizer> BackFromJson(const Tokenizer& tokenizer) {
  return TokenizerFromJson(tokenizer.ToJson(), "", "back").value();
}

TEST(Llama32, EqualsTheReference) {
  NIBBLE_REQUIRE_SHARED();
  const std::string path = "tokenizers/llama-3.2/tokenizer.json";
  ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                       TokenizerFromJson(Contents(path), Contents("tokenizers/llama-3.2/tokenizer_config.json"), path));
  EXPECT_EQ(tokenizer->vocabulary_size(), 128256);
  EXPECT_EQ(tokenizer->bos_id(), 128000);
  EXPECT_EQ(tokenizer->eos_id(), 128009);
  EXPECT_TRUE(tokenizer->adds_bos());
  ExpectCases(*tokenizer, "llama32");
  const Json file = SharedJson("tokenizers/expected.json")["llama32_wiki_valid"];
  ExpectFile(*tokenizer, "data/wikitext-2-raw/wiki.valid.raw", file["tokens"], file["sha256_int32le"]);
  EXPECT_EQ(file["tokens"], 252853);
  const auto back = BackFromJson(*tokenizer);
  ExpectEqualOn(*back, *tokenizer, Contents("data/wikitext-2-raw/wiki.valid.raw"));
  ExpectCases(*back, "llama32");
}

// Meta's tokenizer.model has the same vocabulary; of its special tokens only reserved ones
// have other names.
TEST(Llama32, EqualsItsTiktokenFile) {
  NIBBLE_REQUIRE_SHARED();
  const std::string path = "tokenizers/llama-3.2/tokenizer.json";
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromJson(Contents(path), "", path));
  ASSERT_OK_AND_ASSIGN(const std::string model, ToTiktoken(*tokenizer));
  // Of the tokenizer.model in meta-llama/Meta-Llama-3-8B.
  EXPECT_EQ(Sha256(model), "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55");
  ASSERT_OK_AND_ASSIGN(const auto back, TokenizerFromTiktoken(model, "", "tokenizer.model"));
  ASSERT_OK_AND_ASSIGN(const GgufVocabulary expected, tokenizer->ToGguf());
  ASSERT_OK_AND_ASSIGN(const GgufVocabulary got, back->ToGguf());
  EXPECT_TRUE(got.merges == expected.merges);
  EXPECT_EQ(got.types, expected.types);
  EXPECT_EQ(got.bos_id, expected.bos_id);
  EXPECT_TRUE(got.add_bos);
  ExpectCases(*back, "llama32");
  const std::string text = Contents("data/wikitext-2-raw/wiki.valid.raw");
  EXPECT_EQ(Hash(back->Encode(text)), Hash(tokenizer->Encode(text)));
  ASSERT_OK_AND_ASSIGN(const auto named, TokenizerFromTiktoken(model, Contents("tokenizers/llama-3.2/tokenizer_config.json"), "tokenizer.model"));
  EXPECT_TRUE(named->ToGguf().value().tokens == expected.tokens);
  EXPECT_EQ(named->eos_id(), 128009);
}

TEST(SmolLm2, EqualsTheReference) {
  NIBBLE_REQUIRE_SHARED();
  const char* path = std::getenv("NIBBLE_SMOLLM2_GGUF");
  if (path == nullptr) GTEST_SKIP() << "set NIBBLE_SMOLLM2_GGUF to a GGUF file of SmolLM2";
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromGgufForTest(path));
  EXPECT_EQ(tokenizer->vocabulary_size(), 49152);
  ExpectCases(*tokenizer, "smollm2");
  const Json valid = SharedJson("tokenizers/expected.json")["smollm2_wiki_valid"];
  ExpectFile(*tokenizer, "data/wikitext-2-raw/wiki.valid.raw", valid["tokens"], valid["sha256_int32le"]);
  ExpectFile(*tokenizer, "data/wikitext-2-raw/wiki.test.raw", 303415,
             "18e663b61dd00f49796c8a6ae498b7dbe009cac4a2eaf3c67fa7d81baf47d945");
  const Json strings = SharedJson("golden/smollm2.json")["3a_tokens"]["strings"];
  EXPECT_EQ(strings.size(), 3u);
  for (const Json& one : strings) {
    EXPECT_EQ(tokenizer->Encode(one["text"].get<std::string>()), one["ids"].get<std::vector<int32_t>>());
  }
  const auto back = BackFromJson(*tokenizer);
  ExpectEqualOn(*back, *tokenizer, Contents("data/wikitext-2-raw/wiki.valid.raw"));
  ExpectCases(*back, "smollm2");
}

TEST(Gpt2, RoundTrips) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromGgufForTest(Shared("tokenizers/ggml-vocab-gpt-2.gguf")));
  EXPECT_EQ(tokenizer->vocabulary_size(), 50257);
  EXPECT_EQ(tokenizer->Encode("Hello world<|endoftext|>"), (std::vector<int32_t>{15496, 995, 50256}));
  const std::string text = Contents("data/wikitext-2-raw/wiki.valid.raw") + "\xFF\x80 half a character: \xE2\x96";
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  ExpectEqualOn(*BackFromJson(*tokenizer), *tokenizer, text);
  EXPECT_THAT(std::string(ToTiktoken(*tokenizer).status().message()), ::testing::HasSubstr("it cuts words as 'gpt-2' does"));
}

// The texts of a ".inp" file and the ids of the ".out" file beside it.
TEST(LlamaSpm, EqualsTheReference) {
  NIBBLE_REQUIRE_SHARED();
  const std::string path = "tokenizers/ggml-vocab-llama-spm.gguf";
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromGgufForTest(Shared(path)));
  const auto back = BackFromJson(*tokenizer);
  std::vector<std::string> texts = absl::StrSplit(Contents(path + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = absl::StrSplit(Contents(path + ".out"), '\n');
  // Either file ends with a separator.
  ASSERT_EQ(texts.size(), lines.size());
  ASSERT_GT(texts.size(), 40u);
  for (size_t i = 0; i + 1 < texts.size(); ++i) {
    std::vector<int32_t> ids;
    for (absl::string_view word : absl::StrSplit(lines[i], ' ', absl::SkipEmpty())) {
      ASSERT_TRUE(absl::SimpleAtoi(word, &ids.emplace_back()));
    }
    EXPECT_EQ(tokenizer->Encode(texts[i]), ids) << texts[i];
    EXPECT_EQ(back->Encode(texts[i]), ids) << texts[i];
    EXPECT_EQ(tokenizer->Decode(ids), texts[i]);
  }
}

TEST(LlamaSpm, RoundTripsTextAndJson) {
  NIBBLE_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                       TokenizerFromGgufForTest(Shared("tokenizers/ggml-vocab-llama-spm.gguf")));
  EXPECT_TRUE(tokenizer->adds_bos());
  const std::string text = Contents("data/wikitext-2-raw/wiki.valid.raw");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  const auto back = BackFromJson(*tokenizer);
  ExpectEqualOn(*back, *tokenizer, text);
  // The runs of spaces all have the same score in this vocabulary.
  for (int count = 0; count < 200; ++count) {
    const std::string spaces(count, ' ');
    EXPECT_EQ(back->Encode(spaces + "x"), tokenizer->Encode(spaces + "x")) << count;
  }
}

TEST(Stories260K, EqualsTheReference) {
  NIBBLE_REQUIRE_SHARED();
  const std::string path = Shared("models/stories260K/tok512.bin");
  ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromLlama2c(file->bytes(), 512, path));
  // The safetensors file: a header's length, the header, the tensors.
  const std::string golden = Contents("golden/stories260K.safetensors");
  uint64_t header_size = 0;
  std::memcpy(&header_size, golden.data(), sizeof(header_size));
  const Json header = Json::parse(golden.substr(8, header_size))["ids"];
  const size_t begin = header["data_offsets"][0], end = header["data_offsets"][1];
  std::vector<int32_t> expected;
  const size_t width = (end - begin) / 32;
  for (size_t i = begin; i < end; i += width) {
    expected.emplace_back();
    std::memcpy(&expected.back(), golden.data() + 8 + header_size + i, sizeof(int32_t));
  }
  const std::string text =
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
  std::vector<int32_t> ids = tokenizer->Encode(text);
  EXPECT_EQ(tokenizer->Decode(ids), text);
  ids.insert(ids.begin(), *tokenizer->bos_id());
  EXPECT_EQ(ids, expected);
  const std::string wiki = Contents("data/wikitext-2-raw/wiki.valid.raw");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(wiki)), wiki);
  ExpectEqualOn(*BackFromJson(*tokenizer), *tokenizer, wiki);
}

}  // namespace
}  // namespace nibble::text
