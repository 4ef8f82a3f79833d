#include "core/text/llama2c_tokenizer.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "core/base/status.h"
#include "core/text/sentencepiece.h"
#include "core/text/vocabulary.h"

namespace nibble::text {
namespace {

constexpr int kFirstByte = 3;
constexpr int kFirstNormal = kFirstByte + 256;

// Takes fields off the front of a file.
class Cursor {
 public:
  explicit Cursor(absl::Span<const uint8_t> file) : rest_(file) {}

  absl::StatusOr<absl::string_view> Bytes(int64_t count) {
    if (count < 0 || static_cast<uint64_t>(count) > rest_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(count, " bytes are to follow, but ", rest_.size(), " are left of the file"));
    }
    const absl::string_view bytes(reinterpret_cast<const char*>(rest_.data()), static_cast<size_t>(count));
    rest_.remove_prefix(static_cast<size_t>(count));
    return bytes;
  }

  template <typename T>
  absl::StatusOr<T> Number() {
    NIBBLE_ASSIGN_OR_RETURN(const absl::string_view bytes, Bytes(sizeof(T)));
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  size_t size() const { return rest_.size(); }

 private:
  absl::Span<const uint8_t> rest_;
};

absl::Status ReadPiece(Cursor* cursor, SpmVocabulary* spm) {
  NIBBLE_ASSIGN_OR_RETURN(const float score, cursor->Number<float>());
  NIBBLE_ASSIGN_OR_RETURN(const int32_t length, cursor->Number<int32_t>());
  NIBBLE_ASSIGN_OR_RETURN(const absl::string_view piece, cursor->Bytes(length));
  spm->scores.push_back(score);
  spm->pieces.push_back(absl::StrReplaceAll(piece, {{" ", kSpaceMark}}));
  return absl::OkStatus();
}

// The first 259 pieces are the same in every file.
absl::Status SetTypes(SpmVocabulary* spm) {
  spm->types.assign(spm->pieces.size(), static_cast<int32_t>(TokenType::kNormal));
  const std::string names[] = {"<unk>", "<s>", "</s>"};
  for (int id = 0; id < kFirstNormal; ++id) {
    const std::string expected = id < kFirstByte ? names[id] : BytePiece(static_cast<uint8_t>(id - kFirstByte));
    const TokenType type = id >= kFirstByte ? TokenType::kByte : id == 0 ? TokenType::kUnknown : TokenType::kControl;
    if (absl::StripAsciiWhitespace(spm->pieces[id]) != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " is ", Quoted(spm->pieces[id]), " where llama2.c has ", expected));
    }
    spm->pieces[id] = expected;
    spm->types[id] = static_cast<int32_t>(type);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Read(absl::Span<const uint8_t> file, int vocab_size) {
  if (vocab_size < kFirstNormal) {
    return absl::InvalidArgumentError(
        absl::StrCat("a vocabulary of ", vocab_size, " tokens has no room for the ", kFirstNormal, " that all have"));
  }
  Cursor cursor(file);
  NIBBLE_RETURN_IF_ERROR(cursor.Number<int32_t>().status());
  SpmVocabulary spm;
  for (int id = 0; id < vocab_size; ++id) {
    NIBBLE_RETURN_IF_ERROR(Annotate(ReadPiece(&cursor, &spm), absl::StrCat("token ", id, " of ", vocab_size)));
  }
  if (cursor.size() > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(cursor.size(), " bytes are left after ", vocab_size, " tokens; is the vocabulary larger?"));
  }
  NIBBLE_RETURN_IF_ERROR(SetTypes(&spm));
  spm.unk_id = 0;
  spm.bos_id = 1;
  spm.eos_id = 2;
  return MakeSpm(std::move(spm));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromLlama2c(absl::Span<const uint8_t> file, int vocab_size,
                                                                absl::string_view path) {
  auto tokenizer = Read(file, vocab_size);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  return tokenizer;
}

}  // namespace nibble::text
