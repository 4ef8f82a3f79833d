#include "fuzz/input.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/models/llama.h"
#include "core/text/hf_json.h"

namespace nibble::fuzz {
namespace {

constexpr absl::string_view kSeparator = "\n%%\n";
// Beyond the input's own size: paths, "did you mean", what was expected.
constexpr size_t kMessageBytes = 4096;
// Decoding more than this says nothing new of a parser.
constexpr int64_t kMostDecoded = 1 << 20;

// $TEST_TMPDIR may be a disk; thousands of files a second are for memory.
std::string MakeScratchFolder() {
  const char* test = std::getenv("TEST_TMPDIR");
  for (const std::string& parent : {std::string("/dev/shm"), std::string(test == nullptr ? "/tmp" : test)}) {
    std::string folder = absl::StrCat(parent, "/nibble_fuzz.XXXXXX");
    if (::mkdtemp(folder.data()) != nullptr) return folder;
  }
  Expect(false, "a folder for scratch files in /dev/shm, $TEST_TMPDIR or /tmp", __FILE__, __LINE__);
  return "";
}

const std::string& ScratchPath() {
  static const std::string* const path = [] {
    const auto* made = new std::string(MakeScratchFolder());
    std::atexit([] { std::filesystem::remove_all(ScratchPath()); });
    return made;
  }();
  return *path;
}

}  // namespace

std::vector<absl::string_view> Parts(absl::string_view input, size_t count) {
  std::vector<absl::string_view> parts(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t end = i + 1 < count ? input.find(kSeparator) : absl::string_view::npos;
    parts[i] = input.substr(0, end);
    if (end == absl::string_view::npos) break;
    input.remove_prefix(end + kSeparator.size());
  }
  return parts;
}

ScratchFolder::ScratchFolder() : path_(ScratchPath()) {
  for (const auto& entry : std::filesystem::directory_iterator(path_)) std::filesystem::remove_all(entry.path());
}

std::string ScratchFolder::Put(const std::string& name, absl::string_view contents) const {
  const std::string path = absl::StrCat(path_, "/", name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  NIBBLE_FUZZ_EXPECT(file.good());
  return path;
}

void CheckError(const absl::Status& status, absl::string_view place, size_t input) {
  if (status.ok()) return;
  NIBBLE_FUZZ_EXPECT(!status.message().empty());
  NIBBLE_FUZZ_EXPECT(absl::StrContains(status.message(), place));
  NIBBLE_FUZZ_EXPECT(status.message().size() <= kMessageBytes + 4 * input);
}

void Expect(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  std::abort();
}

void LoadWeights(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights, const ir::Attachments& attachments) {
  const auto graph = BuildLlama(config, std::move(weights), attachments);
  if (!graph.ok()) return;
  for (const ir::Parameter& parameter : graph->parameters()) {
    const auto value = parameter.Load();
    if (!value.ok()) continue;
    if (value->rows() * value->cols() <= kMostDecoded) (void)Decode(*value);
  }
}

void UseTokenizer(const text::Tokenizer& tokenizer, absl::string_view text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  for (const int32_t id : ids) NIBBLE_FUZZ_EXPECT(id >= 0 && id < tokenizer.vocabulary_size());
  (void)tokenizer.Decode(ids);
  (void)tokenizer.Decode({-1, 0, tokenizer.vocabulary_size() - 1, tokenizer.vocabulary_size(), INT32_MAX});
  (void)tokenizer.ToGguf();
  const auto again = text::TokenizerFromJson(tokenizer.ToJson(), tokenizer.ToConfigJson(), "again");
  NIBBLE_FUZZ_EXPECT(again.ok());
  NIBBLE_FUZZ_EXPECT((*again)->vocabulary_size() == tokenizer.vocabulary_size());
}

}  // namespace nibble::fuzz
