#include <limits>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/gguf_model.h"
#include "core/text/bpe.h"
#include "core/text/sentencepiece.h"

namespace nibble::io {
namespace {

using TokenizerOr = absl::StatusOr<std::shared_ptr<const text::Tokenizer>>;

const std::string kPrefix = kGgufTokenizerPrefix;

absl::StatusOr<std::optional<int32_t>> Id(const GgufFile& file, const std::string& key) {
  if (!file.Has(kPrefix + key)) return std::optional<int32_t>();
  NIBBLE_ASSIGN_OR_RETURN(const int64_t id, file.Integer(kPrefix + key));
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", kPrefix, key, " is ", id, ", expected a token id"));
  }
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

absl::StatusOr<bool> Flag(const GgufFile& file, const std::string& key, bool otherwise) {
  if (!file.Has(kPrefix + key)) return otherwise;
  NIBBLE_ASSIGN_OR_RETURN(const int64_t value, file.Integer(kPrefix + key));
  return value != 0;
}

absl::StatusOr<std::vector<int32_t>> TokenTypes(const GgufFile& file) {
  std::vector<int32_t> types;
  if (!file.Has(kPrefix + "token_type")) return types;
  NIBBLE_ASSIGN_OR_RETURN(const auto* numbers, file.Integers(kPrefix + "token_type"));
  for (const int64_t number : *numbers) {
    if (number < 0 || number > 255) {
      return absl::InvalidArgumentError(absl::StrCat(file.path(), ": unknown token type ", number));
    }
    types.push_back(static_cast<int32_t>(number));
  }
  return types;
}

// BOS, EOS and the unknown token.
template <typename Vocabulary>
absl::Status ReadIds(const GgufFile& file, Vocabulary* vocabulary) {
  NIBBLE_ASSIGN_OR_RETURN(vocabulary->bos_id, Id(file, "bos_token_id"));
  NIBBLE_ASSIGN_OR_RETURN(vocabulary->eos_id, Id(file, "eos_token_id"));
  NIBBLE_ASSIGN_OR_RETURN(vocabulary->unk_id, Id(file, "unknown_token_id"));
  return absl::OkStatus();
}

absl::StatusOr<text::BpeVocabulary> ReadBpe(const GgufFile& file) {
  text::BpeVocabulary vocabulary;
  std::string pre;
  if (file.Has(kPrefix + "pre")) {
    NIBBLE_ASSIGN_OR_RETURN(pre, file.Text(kPrefix + "pre"));
  }
  NIBBLE_ASSIGN_OR_RETURN(vocabulary.pre_tokenizer, text::PreTokenizerFromGgufName(pre));
  vocabulary.ignore_merges = text::IgnoresMergesInGguf(vocabulary.pre_tokenizer);
  NIBBLE_ASSIGN_OR_RETURN(const auto* tokens, file.Strings(kPrefix + "tokens"));
  NIBBLE_ASSIGN_OR_RETURN(const auto* merges, file.Strings(kPrefix + "merges"));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> types, TokenTypes(file));
  vocabulary.tokens = *tokens;
  for (const std::string& merge : *merges) {
    NIBBLE_ASSIGN_OR_RETURN(auto pair, text::ParseMerge(merge));
    vocabulary.merges.push_back(std::move(pair));
  }
  vocabulary.added_tokens = text::AddedTokensFromTypes(vocabulary.tokens, types);
  vocabulary.types = types;
  NIBBLE_RETURN_IF_ERROR(ReadIds(file, &vocabulary));
  // Llama 3's files rely on their BOS being added where they do not say so.
  const bool otherwise = vocabulary.pre_tokenizer == text::PreTokenizer::kLlama3 && vocabulary.bos_id.has_value();
  NIBBLE_ASSIGN_OR_RETURN(vocabulary.add_bos, Flag(file, "add_bos_token", otherwise));
  return vocabulary;
}

absl::StatusOr<text::SpmVocabulary> ReadSpm(const GgufFile& file) {
  text::SpmVocabulary vocabulary;
  NIBBLE_ASSIGN_OR_RETURN(const auto* pieces, file.Strings(kPrefix + "tokens"));
  NIBBLE_ASSIGN_OR_RETURN(const auto* scores, file.Numbers(kPrefix + "scores"));
  NIBBLE_ASSIGN_OR_RETURN(vocabulary.types, TokenTypes(file));
  vocabulary.pieces = *pieces;
  vocabulary.scores.assign(scores->begin(), scores->end());
  NIBBLE_RETURN_IF_ERROR(ReadIds(file, &vocabulary));
  NIBBLE_ASSIGN_OR_RETURN(vocabulary.add_bos, Flag(file, "add_bos_token", vocabulary.bos_id.has_value()));
  NIBBLE_ASSIGN_OR_RETURN(vocabulary.add_space_prefix, Flag(file, "add_space_prefix", true));
  return vocabulary;
}

template <typename Vocabulary, typename Make>
TokenizerOr Build(absl::StatusOr<Vocabulary> vocabulary, Make make) {
  if (!vocabulary.ok()) return vocabulary.status();
  NIBBLE_ASSIGN_OR_RETURN(auto tokenizer, make(*std::move(vocabulary)));
  return std::shared_ptr<const text::Tokenizer>(std::move(tokenizer));
}

TokenizerOr ReadTokenizer(const GgufFile& file) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string model, file.Text(kPrefix + "model"));
  if (model == "gpt2") return Build(ReadBpe(file), text::MakeBpe);
  if (model == "llama") return Build(ReadSpm(file), text::MakeSpm);
  return absl::UnimplementedError(absl::StrCat("model '", model, "' is not supported; Nibble knows gpt2 and llama"));
}

}  // namespace

TokenizerOr GgufTokenizer(const GgufFile& file) {
  if (!file.Has(kPrefix + "model")) return std::shared_ptr<const text::Tokenizer>();
  const auto model = file.Text(kPrefix + "model");
  if (model.ok() && (*model == "no_vocab" || *model == "none")) return std::shared_ptr<const text::Tokenizer>();
  auto tokenizer = ReadTokenizer(file);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), absl::StrCat(file.path(), ": tokenizer"));
  return tokenizer;
}

std::string GgufTokenizerNote(const GgufFile& file) {
  const auto model = file.Text(kPrefix + "model"), pre = file.Text(kPrefix + "pre");
  if (!model.ok() || *model != "gpt2" || (pre.ok() && !pre->empty() && *pre != "default")) return "";
  return "the file does not say how its tokenizer splits words (tokenizer.ggml.pre); GPT-2's rule is taken, which may not be the model's";
}

}  // namespace nibble::io
