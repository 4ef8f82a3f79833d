#include "eval/generation.h"

#include <algorithm>
#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "eval/item_scorer.h"
#include "eval/log_probs.h"

namespace nibble::eval {
namespace {

// `text` up to the first of the stop texts, which are looked for one after the other.
std::string CutAtStop(std::string text, const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) text.resize(std::min(text.find(stop), text.size()));
  return text;
}

class Generator {
 public:
  Generator(const Plan& plan, const text::Tokenizer& tokenizer, Session& session, int streams, absl::Span<const std::vector<int32_t>> prompts,
            const GenerationOptions& options)
      : plan_(plan), tokenizer_(tokenizer), session_(session), prompts_(prompts), options_(options), streams_(streams), texts_(prompts.size()) {}

  absl::StatusOr<std::vector<std::string>> Run() {
    Progress progress(options_.label, static_cast<int64_t>(prompts_.size()));
    while (finished_ < prompts_.size()) {
      const std::vector<Segment> segments = NextSegments();
      NIBBLE_RETURN_IF_ERROR(session_.Forward(segments, &hidden_));
      NIBBLE_RETURN_IF_ERROR(LastLogits(segments));
      for (size_t i = 0; i < segments.size(); ++i) {
        NIBBLE_RETURN_IF_ERROR(Append(streams_[segments[i].stream], logits_.data() + i * plan_.vocab_size()));
      }
      progress.Update(static_cast<int64_t>(finished_));
    }
    return std::move(texts_);
  }

 private:
  struct Stream {
    bool active = false;
    size_t prompt = 0;             // the one that runs, or ran last
    bool used = false;             // the cache holds that prompt
    std::vector<int32_t> said;
  };

  // The last token of each stream that runs, a prompt for each that does not.
  std::vector<Segment> NextSegments() {
    std::vector<Segment> segments;
    for (size_t s = 0; s < streams_.size(); ++s) {
      Stream& stream = streams_[s];
      const int index = static_cast<int>(s);
      if (stream.active) {
        segments.push_back({index, absl::MakeConstSpan(&stream.said.back(), 1)});
      } else if (next_ < prompts_.size()) {
        const auto held = stream.used ? absl::MakeConstSpan(prompts_[stream.prompt]) : absl::Span<const int32_t>();
        const auto prompt = absl::MakeConstSpan(prompts_[next_]);
        const int64_t kept = KeptTokens(held, prompt);
        session_.Rewind(index, kept);
        stream = {true, next_++, true, {}};
        segments.push_back({index, prompt.subspan(kept), 1});
      }
    }
    return segments;
  }

  // Logits after the last token of each segment.
  absl::Status LastLogits(const std::vector<Segment>& segments) {
    const int64_t count = static_cast<int64_t>(segments.size());
    logits_.resize(count * plan_.vocab_size());
    return session_.Logits(hidden_.data(), count, logits_.data());
  }

  absl::Status Append(Stream& stream, const float* logits) {
    const int64_t token = ArgMax(logits, plan_.vocab_size());
    if (!std::isfinite(LogSumExp(logits, plan_.vocab_size()))) return Annotate(NotFinite(0), absl::StrCat("prompt ", stream.prompt));
    const bool is_eos = tokenizer_.eos_id() == static_cast<int32_t>(token) || absl::c_linear_search(options_.end_tokens, token);
    if (!is_eos) stream.said.push_back(static_cast<int32_t>(token));
    const std::string text = tokenizer_.Decode(stream.said);
    const std::string cut = CutAtStop(text, options_.stop);
    if (!is_eos && cut.size() == text.size() && static_cast<int64_t>(stream.said.size()) < options_.max_tokens) return absl::OkStatus();
    texts_[stream.prompt] = cut;
    stream.active = false;
    ++finished_;
    return absl::OkStatus();
  }

  const Plan& plan_;
  const text::Tokenizer& tokenizer_;
  Session& session_;
  const absl::Span<const std::vector<int32_t>> prompts_;
  const GenerationOptions& options_;
  std::vector<Stream> streams_;
  std::vector<std::string> texts_;
  std::vector<float> hidden_, logits_;
  size_t next_ = 0, finished_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> GenerateGreedily(const Plan& plan, ThreadPool& pool, const text::Tokenizer& tokenizer,
                                                          absl::Span<const std::vector<int32_t>> prompts, const GenerationOptions& options) {
  int64_t longest = 1;
  for (const std::vector<int32_t>& prompt : prompts) longest = std::max(longest, static_cast<int64_t>(prompt.size()) + options.max_tokens - 1);
  const SessionOptions session_options = SessionFor(longest, options.prompts_at_once, prompts.size());
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(plan, pool, session_options));
  return Generator(plan, tokenizer, *session, session_options.streams, prompts, options).Run();
}

}  // namespace nibble::eval
