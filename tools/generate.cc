// nibble generate: continues a prompt, to see what a model says.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/runtime/plan.h"
#include "core/runtime/session.h"
#include "core/text/prefix_tokens.h"
#include "eval/log_probs.h"
#include "experiments/model.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

// The most likely token at temperature 0, else one drawn from the softmax of
// logits / temperature.
int32_t ChooseToken(const std::vector<float>& logits, double temperature, Rng& rng) {
  const auto top = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int32_t>(top - logits.begin());
  std::vector<double> weights(logits.size());
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) total += weights[i] = std::exp((logits[i] - *top) / temperature);
  double draw = rng.Uniform() * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    draw -= weights[i];
    if (draw <= 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(weights.size() - 1);
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const text::Tokenizer& tokenizer, const std::string& prompt) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, text::PrefixTokens(tokenizer, /*empty_context=*/prompt.empty()));
  const std::vector<int32_t> ids = tokenizer.Encode(prompt);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  if (tokens.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  return tokens;
}

absl::StatusOr<int> Generate(const Options& options) {
  NIBBLE_ASSIGN_OR_RETURN(const OpenedModel model, OpenModel(options.Text("model")));
  if (model.source.tokenizer == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(options.Text("model"), " has no tokenizer, so it can continue no text"));
  }
  const text::Tokenizer& tokenizer = *model.source.tokenizer;
  NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodePrompt(tokenizer, options.Text("prompt")));
  const int count = options.Get<int>("tokens");
  if (count < 1) return absl::InvalidArgumentError("--tokens must be 1 or more");
  NIBBLE_ASSIGN_OR_RETURN(const auto plan, PlanOf(model));
  NIBBLE_ASSIGN_OR_RETURN(const int threads, ThreadsOf(options));
  ThreadPool pool(ThreadsOrAll(threads));
  SessionOptions session_options;
  session_options.max_positions = static_cast<int64_t>(tokens.size()) + count;
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(*plan, pool, session_options));
  Rng rng(options.Get<uint64_t>("seed"));
  std::vector<float> hidden, logits(plan->vocab_size());
  std::vector<int32_t> next = tokens;
  // The BOS before the prompt is the model's, not the text's.
  const size_t first = tokens[0] == tokenizer.bos_id() ? 1 : 0;
  const auto text_of = [&] { return tokenizer.Decode(absl::MakeConstSpan(tokens).subspan(first)); };
  std::string shown = text_of();
  std::printf("%s", shown.c_str());
  for (int i = 0; i < count; ++i) {
    NIBBLE_RETURN_IF_ERROR(Annotate(session->Forward({{0, next, 1}}, &hidden), options.Text("model")));
    NIBBLE_RETURN_IF_ERROR(session->Logits(hidden.data(), 1, logits.data()));
    if (!std::isfinite(eval::LogSumExp(logits.data(), plan->vocab_size()))) return Annotate(eval::NotFinite(0), options.Text("model"));
    next = {ChooseToken(logits, options.Get<double>("temperature"), rng)};
    if (tokenizer.eos_id() == next[0] || absl::c_linear_search(model.source.config.eos_token_ids, next[0])) break;
    tokens.push_back(next[0]);
    // A token's text may depend on its neighbours, so the whole is decoded and
    // what is new is printed.
    const std::string text = text_of();
    if (text.size() > shown.size()) std::printf("%s", text.c_str() + shown.size());
    std::fflush(stdout);
    shown = text;
  }
  std::printf("\n");
  return kDone;
}

}  // namespace

Command GenerateCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "generate";
  command.summary = "Continues a prompt.";
  command.usage = "generate --model M --prompt TEXT [--tokens N] [--temperature T] [--seed N] [--threads N]";
  command.examples =
      "  nibble generate --model smollm2-135m --prompt 'The capital of France is'\n"
      "  nibble generate --model out/smollm2-w4a8 --prompt 'Once upon a time' --tokens 100 --temperature 0.8 --seed 1\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, or a fetched name; decoded: before it for floats")(
      "prompt", po::value<std::string>(), "the text to continue")("tokens", po::value<int>()->default_value(64), "tokens to generate")(
      "temperature", po::value<double>()->default_value(0), "0: the most likely token each time")(
      "seed", po::value<uint64_t>()->default_value(0), "of sampling")("threads", po::value<int>(), "threads (default: all CPUs)");
  command.required = {"model", "prompt"};
  command.run = Generate;
  return command;
}

}  // namespace nibble::tools
