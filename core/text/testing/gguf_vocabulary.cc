#include "core/text/testing/gguf_vocabulary.h"

#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/text/bpe.h"
#include "core/text/sentencepiece.h"

namespace nibble::text {
namespace {

enum GgufType : uint32_t { kFloat32 = 6, kBool = 7, kString = 8, kArray = 9 };

// A value: numbers and strings as a list, which is of length 1 for a scalar.
struct Value {
  std::vector<double> numbers;
  std::vector<std::string> strings;
};
using Metadata = std::map<std::string, Value>;

class MetadataReader {
 public:
  explicit MetadataReader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  absl::StatusOr<Metadata> Read() {
    Metadata metadata;
    Number<uint32_t>();  // "GGUF"
    Number<uint32_t>();  // version
    Number<uint64_t>();  // tensors
    const uint64_t count = Number<uint64_t>();
    for (uint64_t i = 0; i < count && !failed_; ++i) {
      const std::string key = String();
      ReadValue(Number<uint32_t>(), &metadata[key]);
    }
    if (failed_) return absl::InvalidArgumentError("the GGUF metadata are damaged");
    return metadata;
  }

 private:
  template <typename T>
  T Number() {
    T value{};
    if (position_ + sizeof(T) > bytes_.size()) {
      failed_ = true;
      return value;
    }
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string String() {
    const uint64_t size = Number<uint64_t>();
    if (failed_ || size > bytes_.size() - position_) {
      failed_ = true;
      return "";
    }
    position_ += size;
    return std::string(reinterpret_cast<const char*>(bytes_.data()) + position_ - size, size);
  }

  double NumberOf(uint32_t type) {
    switch (type) {
      case 0: return Number<uint8_t>();
      case 1: return Number<int8_t>();
      case 2: return Number<uint16_t>();
      case 3: return Number<int16_t>();
      case 4: return Number<uint32_t>();
      case 5: return Number<int32_t>();
      case kFloat32: return Number<float>();
      case kBool: return Number<uint8_t>();
      case 10: return Number<uint64_t>();
      case 11: return Number<int64_t>();
      case 12: return Number<double>();
      default: failed_ = true; return 0;
    }
  }

  void ReadValue(uint32_t type, Value* value) {
    uint64_t count = 1;
    if (type == kArray) {
      type = Number<uint32_t>();
      count = Number<uint64_t>();
    }
    for (uint64_t i = 0; i < count && !failed_; ++i) {
      if (type == kString) {
        value->strings.push_back(String());
      } else {
        value->numbers.push_back(NumberOf(type));
      }
    }
  }

  const absl::Span<const uint8_t> bytes_;
  size_t position_ = 0;
  bool failed_ = false;
};

std::optional<double> FindNumber(const Metadata& metadata, const std::string& key) {
  const auto it = metadata.find("tokenizer.ggml." + key);
  if (it == metadata.end() || it->second.numbers.size() != 1) return std::nullopt;
  return it->second.numbers[0];
}

std::optional<int32_t> FindId(const Metadata& metadata, const std::string& key) {
  const std::optional<double> id = FindNumber(metadata, key);
  return id.has_value() ? std::optional<int32_t>(static_cast<int32_t>(*id)) : std::nullopt;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeFromGpt2(Metadata metadata) {
  BpeVocabulary bpe;
  const std::vector<std::string>& pre = metadata["tokenizer.ggml.pre"].strings;
  NIBBLE_ASSIGN_OR_RETURN(bpe.pre_tokenizer, PreTokenizerFromGgufName(pre.empty() ? "" : pre[0]));
  bpe.ignore_merges = IgnoresMergesInGguf(bpe.pre_tokenizer);
  bpe.tokens = metadata["tokenizer.ggml.tokens"].strings;
  const std::vector<double>& types = metadata["tokenizer.ggml.token_type"].numbers;
  bpe.added_tokens = AddedTokensFromTypes(bpe.tokens, std::vector<int32_t>(types.begin(), types.end()));
  for (const std::string& merge : metadata["tokenizer.ggml.merges"].strings) {
    NIBBLE_ASSIGN_OR_RETURN(auto pair, ParseMerge(merge));
    bpe.merges.push_back(std::move(pair));
  }
  bpe.bos_id = FindId(metadata, "bos_token_id");
  bpe.eos_id = FindId(metadata, "eos_token_id");
  bpe.add_bos = FindNumber(metadata, "add_bos_token").value_or(0) != 0;
  return MakeBpe(std::move(bpe));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeFromLlama(Metadata metadata) {
  SpmVocabulary spm;
  spm.pieces = metadata["tokenizer.ggml.tokens"].strings;
  const std::vector<double>& scores = metadata["tokenizer.ggml.scores"].numbers;
  const std::vector<double>& types = metadata["tokenizer.ggml.token_type"].numbers;
  spm.scores.assign(scores.begin(), scores.end());
  spm.types.assign(types.begin(), types.end());
  spm.bos_id = FindId(metadata, "bos_token_id");
  spm.eos_id = FindId(metadata, "eos_token_id");
  spm.unk_id = FindId(metadata, "unknown_token_id");
  spm.add_bos = FindNumber(metadata, "add_bos_token").value_or(1) != 0;
  spm.add_space_prefix = FindNumber(metadata, "add_space_prefix").value_or(1) != 0;
  return MakeSpm(std::move(spm));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGgufForTest(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  NIBBLE_ASSIGN_OR_RETURN(Metadata metadata, MetadataReader(file->bytes()).Read());
  const std::vector<std::string>& model = metadata["tokenizer.ggml.model"].strings;
  if (model == std::vector<std::string>{"gpt2"}) return MakeFromGpt2(std::move(metadata));
  if (model == std::vector<std::string>{"llama"}) return MakeFromLlama(std::move(metadata));
  return absl::UnimplementedError(absl::StrCat(path, ": neither a gpt2 nor a llama tokenizer"));
}

}  // namespace nibble::text
