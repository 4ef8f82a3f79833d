#include "methods/training/data.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/pattern.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/text/prefix_tokens.h"
#include "datasets/registry.h"
#include "datasets/text.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

// `used`: which of the patterns left a file out.
absl::StatusOr<std::vector<std::string>> FilesOfFolder(const std::string& folder, const std::vector<std::string>& exclude,
                                                       std::vector<bool>* used) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    bool excluded = false;
    for (size_t i = 0; i < exclude.size(); ++i) {
      if (MatchesPattern(exclude[i], name)) (*used)[i] = excluded = true;
    }
    if (entry.is_regular_file() && absl::EndsWith(name, ".txt") && !excluded) files.push_back(entry.path().string());
  }
  if (error) return absl::NotFoundError(absl::StrCat(folder, ": ", error.message()));
  if (files.empty()) return absl::NotFoundError(absl::StrCat(folder, " holds no .txt file to train on"));
  std::sort(files.begin(), files.end());
  return files;
}

// A folder as it is given, or below `directory`.
std::string FindFolder(const std::string& name, const std::string& directory) {
  if (IsDirectory(name)) return name;
  const std::string below = absl::StrCat(directory, "/", name);
  return !directory.empty() && IsDirectory(below) ? below : "";
}

struct Part {
  std::string text;
  bool learned = false;
};

// Tokens with a mark on those to learn.
struct Marked {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> learned;
};

size_t CommonPrefix(absl::Span<const int32_t> a, absl::Span<const int32_t> b) {
  return std::mismatch(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin()).first - a.begin();
}

// The parts as one text, which is how a model reads them. A part's tokens are those that are
// not there, or are others, without it: a token that merges across the border of two parts
// is of the later one. Marks are right up to `window`.
absl::StatusOr<Marked> EncodeParts(const text::Tokenizer& tokenizer, const std::vector<Part>& parts, int64_t window) {
  std::string text;
  for (const Part& part : parts) absl::StrAppend(&text, part.text);
  Marked marked;
  NIBBLE_ASSIGN_OR_RETURN(marked.tokens, text::PrefixTokens(tokenizer, /*empty_context=*/parts[0].text.empty()));
  const size_t first = marked.tokens.size();
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  marked.tokens.insert(marked.tokens.end(), ids.begin(), ids.end());
  marked.learned.assign(marked.tokens.size(), 0);
  size_t offset = 0;
  for (const Part& part : parts) {
    const size_t begin = first + CommonPrefix(tokenizer.Encode(absl::string_view(text).substr(0, offset)), ids);
    if (begin >= static_cast<size_t>(window)) break;
    std::fill(marked.learned.begin() + begin, marked.learned.end(), part.learned ? 1 : 0);
    offset += part.text.size();
  }
  return marked;
}

// The first token of a sequence is never predicted.
bool TeachesNothing(absl::Span<const uint8_t> learned) { return learned.empty() || std::find(learned.begin() + 1, learned.end(), 1) == learned.end(); }

// The text around a turn.
struct Template {
  std::string before_role, after_role, end;
};

Template TemplateOf(const text::Tokenizer& tokenizer) {
  if (tokenizer.Encode("<|im_start|>").size() == 1) return {"<|im_start|>", "\n", "<|im_end|>\n"};
  if (tokenizer.Encode("<|start_header_id|>").size() == 1) return {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"};
  return {"", ": ", "\n"};
}

// Of a tokenizer without markers of turns.
bool IsPlain(const Template& form) { return form.before_role.empty(); }

absl::StatusOr<const text::Tokenizer*> TokenizerOf(const Context& context) {
  if (context.workplace().tokenizer != nullptr) return context.workplace().tokenizer;
  return absl::FailedPreconditionError("the model has no tokenizer, so it can read no text to train on");
}

// A model says nothing of use beyond the positions that it was made for.
absl::Status CheckPositions(const Context& context, int64_t window) {
  const int64_t positions = context.workplace().max_positions;
  if (positions == 0 || window <= positions) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("data.window: ", window, " tokens, but the model was made for ", positions, " positions; set it to that or less"));
}

// Tokens in another order (Fisher & Yates).
std::vector<int32_t> Shuffled(absl::Span<const int32_t> tokens, Rng* rng) {
  std::vector<int32_t> shuffled(tokens.begin(), tokens.end());
  for (size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[rng->Below(i)]);
  return shuffled;
}

// A window and the same window with its second half shuffled; that half is
// learned.
void AddShuffledPair(absl::Span<const int32_t> window, Rng* rng, train::Sequences* sequences) {
  const size_t half = window.size() / 2;
  std::vector<uint8_t> learned(window.size(), 0);
  std::fill(learned.begin() + half, learned.end(), uint8_t{1});
  sequences->Add(window, learned);
  std::vector<int32_t> rejected(window.begin(), window.begin() + half);
  const std::vector<int32_t> rest = Shuffled(window.subspan(half), rng);
  rejected.insert(rejected.end(), rest.begin(), rest.end());
  sequences->Add(rejected, learned);
}

absl::Status AddTexts(Context& context, const TrainingData& data, const text::Tokenizer& tokenizer, train::Sequences* sequences) {
  if (data.text().empty()) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const auto files, TextFiles({data.text().begin(), data.text().end()}, {data.exclude().begin(), data.exclude().end()},
                                                      context.workplace().directory));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> stream, TokenStream(tokenizer, files));
  sequences->AddWindows(stream, data.window());
  if (sequences->size() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the text has ", stream.size(), " tokens, less than one window of ", data.window()));
}

absl::Status AddConversations(Context& context, const TrainingData& data, const text::Tokenizer& tokenizer, train::Sequences* sequences) {
  int64_t cut = 0, without_reply = 0, learned = 0;
  for (const std::string& name : data.conversations()) {
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(name, context.workplace().directory));
    NIBBLE_ASSIGN_OR_RETURN(const auto conversations, datasets::ReadConversations(resolved.path));
    for (const datasets::Conversation& conversation : conversations) {
      NIBBLE_ASSIGN_OR_RETURN(const Added added, AddConversation(tokenizer, conversation, data.window(), sequences));
      cut += added == Added::kCut;
      without_reply += added == Added::kNotAtAll;
      learned += added != Added::kNotAtAll;
    }
  }
  const std::string window = absl::StrCat("window of ", data.window(), " tokens");
  if (cut > 0) context.CountEvent("conversations.cut", cut, window);
  if (learned > 0 && IsPlain(TemplateOf(tokenizer))) {
    context.CountEvent("conversations.plain_template", learned, "the tokenizer has neither ChatML's nor Llama 3's markers: \"role: text\" lines");
  }
  if (without_reply > 0) context.CountEvent("conversations.without_reply", without_reply, absl::StrCat("nothing to learn in a ", window));
  if (sequences->size() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("no conversation says anything to learn within a ", window, "; raise data.window"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> TextFiles(const std::vector<std::string>& names, const std::vector<std::string>& exclude,
                                                   const std::string& directory) {
  std::vector<std::string> files;
  std::vector<bool> used(exclude.size(), false);
  for (const std::string& name : names) {
    const std::string folder = FindFolder(name, directory);
    if (!folder.empty()) {
      NIBBLE_ASSIGN_OR_RETURN(const auto inside, FilesOfFolder(folder, exclude, &used));
      files.insert(files.end(), inside.begin(), inside.end());
      continue;
    }
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(name, directory));
    files.push_back(resolved.path);
  }
  for (size_t i = 0; i < exclude.size(); ++i) {
    if (used[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat("exclude: \"", exclude[i], "\" matches no file of the folders ", absl::StrJoin(names, ", "),
                                                   ", so it leaves nothing out; it is a pattern over file names such as \"jane-austen*\""));
  }
  return files;
}

absl::StatusOr<std::vector<int32_t>> TokenStream(const text::Tokenizer& tokenizer, const std::vector<std::string>& files) {
  std::vector<int32_t> stream;
  for (const std::string& file : files) {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, datasets::ReadText(file));
    if (tokenizer.bos_id().has_value()) stream.push_back(*tokenizer.bos_id());
    const std::vector<int32_t> tokens = tokenizer.Encode(text);
    stream.insert(stream.end(), tokens.begin(), tokens.end());
    if (tokenizer.eos_id().has_value()) stream.push_back(*tokenizer.eos_id());
  }
  return stream;
}

absl::StatusOr<Added> AddConversation(const text::Tokenizer& tokenizer, const datasets::Conversation& conversation, int64_t window, train::Sequences* sequences) {
  const Template form = TemplateOf(tokenizer);
  std::vector<Part> parts;
  for (const datasets::Message& message : conversation.messages) {
    parts.push_back({absl::StrCat(form.before_role, message.role, form.after_role), false});
    parts.push_back({absl::StrCat(message.content, form.end), message.role == "assistant"});
  }
  NIBBLE_ASSIGN_OR_RETURN(const Marked marked, EncodeParts(tokenizer, parts, window));
  const size_t length = std::min<size_t>(marked.tokens.size(), window);
  const auto learned = absl::MakeConstSpan(marked.learned).subspan(0, length);
  if (TeachesNothing(learned)) return Added::kNotAtAll;
  sequences->Add(absl::MakeConstSpan(marked.tokens).subspan(0, length), learned);
  return length == marked.tokens.size() ? Added::kWhole : Added::kCut;
}

absl::StatusOr<bool> AddCompletion(const text::Tokenizer& tokenizer, const std::string& prompt, const std::string& completion, int64_t window,
                                   train::Sequences* sequences) {
  NIBBLE_ASSIGN_OR_RETURN(const Marked marked, EncodeParts(tokenizer, {{prompt, false}, {completion, true}}, window));
  if (TeachesNothing(marked.learned) || static_cast<int64_t>(marked.tokens.size()) > window) return false;
  sequences->Add(marked.tokens, marked.learned);
  return true;
}

absl::Status CheckData(const TrainingData& data) {
  if (data.text().empty() && data.conversations().empty()) {
    return absl::InvalidArgumentError("data is empty: name files to learn from, data { text: \"books/\" } or data { conversations: \"chats.jsonl\" }");
  }
  if (data.window() < 2) return absl::InvalidArgumentError(absl::StrCat("data.window: ", data.window(), ", expected 2 or more"));
  return absl::OkStatus();
}

absl::StatusOr<train::Sequences> ReadTrainingData(Context& context, const TrainingData& data) {
  NIBBLE_RETURN_IF_ERROR(CheckData(data));
  NIBBLE_RETURN_IF_ERROR(CheckPositions(context, data.window()));
  NIBBLE_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, TokenizerOf(context));
  train::Sequences sequences;
  NIBBLE_RETURN_IF_ERROR(AddTexts(context, data, *tokenizer, &sequences));
  NIBBLE_RETURN_IF_ERROR(AddConversations(context, data, *tokenizer, &sequences));
  return sequences;
}

absl::StatusOr<std::vector<calibration::Batch>> CalibrationBatches(Context& context, const ir::Graph& graph, const TrainingData& data,
                                                                   int64_t samples, uint64_t seed) {
  NIBBLE_ASSIGN_OR_RETURN(const train::Sequences sequences, ReadTrainingData(context, data));
  return CalibrationBatches(context, graph, sequences, samples, seed);
}

absl::StatusOr<std::vector<calibration::Batch>> CalibrationBatches(Context& context, const ir::Graph& graph, const train::Sequences& sequences,
                                                                   int64_t samples, uint64_t seed) {
  if (sequences.size() < samples) {
    context.CountEvent("calibration.fewer_samples", samples - sequences.size(), absl::StrCat("the text has ", sequences.size(), " windows"));
  }
  return calibration::EmbedBatches(graph, sequences, samples, seed);
}

absl::StatusOr<train::Sequences> ReadPreferenceData(Context& context, const PreferenceData& data) {
  NIBBLE_RETURN_IF_ERROR(CheckPreferences(data));
  if (!data.pairs().empty()) NIBBLE_RETURN_IF_ERROR(CheckPositions(context, data.window()));
  NIBBLE_ASSIGN_OR_RETURN(const text::Tokenizer* tokenizer, TokenizerOf(context));
  train::Sequences sequences;
  if (data.has_shuffled()) {
    NIBBLE_ASSIGN_OR_RETURN(const train::Sequences windows, ReadTrainingData(context, data.shuffled()));
    const int64_t pairs = std::min<int64_t>(windows.size(), data.shuffled_pairs());
    Rng rng(0);
    for (int64_t i = 0; i < pairs; ++i) AddShuffledPair(windows.tokens(windows.size() * i / pairs), &rng, &sequences);
  }
  int64_t too_long = 0;
  for (const std::string& name : data.pairs()) {
    NIBBLE_ASSIGN_OR_RETURN(const auto resolved, datasets::ResolveDataset(name, context.workplace().directory));
    NIBBLE_ASSIGN_OR_RETURN(const auto preferences, datasets::ReadPreferences(resolved.path));
    for (const datasets::Preference& preference : preferences) {
      train::Sequences pair;
      NIBBLE_ASSIGN_OR_RETURN(const bool chosen, AddCompletion(*tokenizer, preference.prompt, preference.chosen, data.window(), &pair));
      NIBBLE_ASSIGN_OR_RETURN(const bool rejected, AddCompletion(*tokenizer, preference.prompt, preference.rejected, data.window(), &pair));
      if (chosen && rejected) {
        for (const int64_t i : {0, 1}) sequences.Add(pair.tokens(i), pair.learned(i));
      } else {
        ++too_long;
      }
    }
  }
  if (too_long > 0) context.CountEvent("dpo.pair_longer_than_window", too_long, absl::StrCat("window of ", data.window(), " tokens; or without a token to learn"));
  if (sequences.size() == 0) return absl::InvalidArgumentError("no pair fits the window");
  return sequences;
}

}  // namespace nibble
