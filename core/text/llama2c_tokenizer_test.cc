#include "core/text/llama2c_tokenizer.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/testing.h"

namespace nibble::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void Append(std::vector<uint8_t>* file, float score, const std::string& piece) {
  const int32_t length = static_cast<int32_t>(piece.size());
  file->resize(file->size() + 8);
  std::memcpy(&(*file)[file->size() - 8], &score, 4);
  std::memcpy(&(*file)[file->size() - 4], &length, 4);
  file->insert(file->end(), piece.begin(), piece.end());
}

// 263 tokens; the last are " ", "a", "b", " a".
std::vector<uint8_t> File() {
  std::vector<uint8_t> file = {7, 0, 0, 0};
  for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n"}) Append(&file, 0, piece);
  for (int byte = 0; byte < 256; ++byte) Append(&file, 0, absl::StrFormat("<0x%02X>", byte));
  Append(&file, -9, " ");
  Append(&file, -9, "a");
  Append(&file, -9, "b");
  Append(&file, -1, " a");
  return file;
}

TEST(Llama2c, ReadsTheFile) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, TokenizerFromLlama2c(File(), 263, "t.bin"));
  EXPECT_EQ(tokenizer->vocabulary_size(), 263);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  const std::vector<int32_t> ids = tokenizer->Encode("a b\n</s>");
  EXPECT_THAT(ids, ElementsAre(262, 259, 261, 3 + '\n', 2));
  EXPECT_EQ(tokenizer->Decode(ids), "a b\n</s>");
}

TEST(Llama2c, EveryCutIsAnError) {
  const std::vector<uint8_t> file = File();
  for (size_t size = 0; size < file.size(); ++size) {
    const auto read = TokenizerFromLlama2c(absl::MakeSpan(file.data(), size), 263, "t.bin");
    ASSERT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr("t.bin"));
  }
}

TEST(Llama2c, AWrongVocabularySizeIsAnError) {
  EXPECT_THAT(std::string(TokenizerFromLlama2c(File(), 262, "t").status().message()), HasSubstr("are left after"));
  EXPECT_THAT(std::string(TokenizerFromLlama2c(File(), 264, "t").status().message()), HasSubstr("token 263 of 264"));
  EXPECT_FALSE(TokenizerFromLlama2c(File(), 258, "t").ok());
  EXPECT_FALSE(TokenizerFromLlama2c(File(), -1, "t").ok());
}

TEST(Llama2c, BadLengthsAndNamesAreErrors) {
  std::vector<uint8_t> file = File();
  for (uint8_t high : {0x7F, 0xFF}) {
    file[11] = high;  // the first token's length
    EXPECT_FALSE(TokenizerFromLlama2c(file, 263, "t").ok());
  }
  file = File();
  file[12] = '(';  // "<unk>"
  EXPECT_THAT(std::string(TokenizerFromLlama2c(file, 263, "t").status().message()), HasSubstr("where llama2.c has"));
}

}  // namespace
}  // namespace nibble::text
