#include "eval/windows.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "datasets/text.h"

namespace nibble::eval {
namespace {

// Tokens that go through the model together when windows are shorter.
constexpr int64_t kBatchTokens = 2048;

absl::StatusOr<std::optional<int32_t>> AddedBos(const text::Tokenizer& tokenizer) {
  if (!tokenizer.adds_bos()) return std::optional<int32_t>();
  if (tokenizer.bos_id().has_value()) return tokenizer.bos_id();
  return absl::InvalidArgumentError("the tokenizer asks for a BOS but names none");
}

std::string ConventionText(const WindowOptions& options, int64_t window, size_t windows, bool bos) {
  const bool gptq = options.convention == WindowConvention::kGptq;
  return absl::StrCat(gptq ? "gptq" : "llama.cpp", " window=", window, " windows=", windows, " bos=",
                      !bos   ? "none"
                      : gptq ? "text"
                             : "window");
}

// Runs the windows of a batch, one a stream, all tokens but the last of each.
absl::Status ForwardBatch(Session& session, const TextWindows& windows, size_t begin, size_t count,
                          std::vector<float>* hidden) {
  std::vector<Segment> segments;
  for (size_t s = 0; s < count; ++s) {
    const auto tokens = absl::MakeConstSpan(windows.windows[begin + s]);
    session.Rewind(static_cast<int>(s), 0);
    segments.push_back({static_cast<int>(s), tokens.first(tokens.size() - 1), windows.predictions()});
  }
  return session.Forward(segments, hidden);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TokenizeForPerplexity(const text::Tokenizer& tokenizer, absl::string_view text) {
  NIBBLE_ASSIGN_OR_RETURN(const std::optional<int32_t> bos, AddedBos(tokenizer));
  std::vector<int32_t> tokens = tokenizer.Encode(text);
  if (bos.has_value()) tokens.insert(tokens.begin(), *bos);
  return tokens;
}

absl::StatusOr<TextWindows> MakeWindows(std::string set, absl::Span<const int32_t> tokens, std::optional<int32_t> bos,
                                        const WindowOptions& options) {
  const bool gptq = options.convention == WindowConvention::kGptq;
  const int64_t window = options.window != 0 ? options.window : gptq ? 2048 : 512;
  TextWindows result;
  result.first = gptq ? 0 : window / 2;
  if (window - 1 - result.first < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a window of ", window, " tokens predicts nothing"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const auto cut, datasets::CutWindows(tokens, window, options.limit));
  for (const auto& part : cut) {
    result.windows.emplace_back(part.begin(), part.end());
    if (!gptq && bos.has_value()) result.windows.back()[0] = *bos;
  }
  result.convention = ConventionText(options, window, result.windows.size(), bos.has_value());
  result.set = std::move(set);
  return result;
}

absl::StatusOr<TextWindows> MakeWindows(std::string set, const text::Tokenizer& tokenizer, absl::string_view text,
                                        const WindowOptions& options) {
  NIBBLE_ASSIGN_OR_RETURN(const std::optional<int32_t> bos, AddedBos(tokenizer));
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokenizeForPerplexity(tokenizer, text));
  auto windows = MakeWindows(set, tokens, bos, options);
  if (!windows.ok()) return Annotate(windows.status(), set);
  return windows;
}

absl::Status VisitWindows(absl::Span<const Plan* const> plans, ThreadPool& pool, const TextWindows& windows, const std::string& label,
                          const WindowsVisitor& visit) {
  const size_t total = windows.windows.size();
  const size_t streams = std::clamp<size_t>(kBatchTokens / windows.window(), 1, total);
  std::vector<std::unique_ptr<Session>> sessions(plans.size());
  for (size_t p = 0; p < plans.size(); ++p) {
    NIBBLE_ASSIGN_OR_RETURN(sessions[p], Session::Create(*plans[p], pool, {.streams = static_cast<int>(streams), .max_positions = windows.window() - 1}));
  }
  Progress progress(label, static_cast<int64_t>(total));
  std::vector<std::vector<float>> hidden(plans.size());
  std::vector<WindowStates> states(plans.size());
  for (size_t begin = 0; begin < total; begin += streams) {
    const size_t count = std::min(streams, total - begin);
    for (size_t p = 0; p < plans.size(); ++p) NIBBLE_RETURN_IF_ERROR(ForwardBatch(*sessions[p], windows, begin, count, &hidden[p]));
    for (size_t s = 0; s < count; ++s) {
      for (size_t p = 0; p < plans.size(); ++p) {
        states[p] = {sessions[p].get(), hidden[p].data() + static_cast<int64_t>(s) * windows.predictions() * plans[p]->hidden_size()};
      }
      NIBBLE_RETURN_IF_ERROR(Annotate(visit(states, begin + s), absl::StrCat(windows.set, " window ", begin + s)));
      progress.Update(static_cast<int64_t>(begin + s + 1));
    }
  }
  return absl::OkStatus();
}

absl::Status VisitWindows(const Plan& plan, ThreadPool& pool, const TextWindows& windows, const std::string& label,
                          const WindowVisitor& visit) {
  return VisitWindows({&plan}, pool, windows, label,
                      [&](absl::Span<const WindowStates> states, size_t window) { return visit(*states[0].session, window, states[0].hidden); });
}

}  // namespace nibble::eval
