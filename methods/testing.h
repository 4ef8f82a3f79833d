// What method tests share: a small random model and a way to run steps on it.
#ifndef NIBBLE_METHODS_TESTING_H_
#define NIBBLE_METHODS_TESTING_H_

#include <cmath>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/testing.h"
#include "core/models/llama.h"
#include "core/runtime/plan.h"
#include "core/runtime/reference.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "methods/method.h"

namespace nibble {

// Hidden 48, ffn 100, 2 layers, GQA, tied head; widths that divide by no group.
inline ir::Graph TinyGraph(bool tied = true) {
  LlamaConfig config = *ShapePreset("tiny");
  config.tie_word_embeddings = tied;
  auto graph = BuildLlama(config, SyntheticWeights(config, 3));
  EXPECT_OK(graph);
  return *std::move(graph);
}

inline Pipeline ParsePipeline(const std::string& text) {
  Pipeline pipeline;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &pipeline)) << text;
  return pipeline;
}

// A letter a token, for the tiny vocabulary.
class LetterTokenizer : public text::Tokenizer {
 public:
  std::vector<int32_t> Encode(absl::string_view utf8) const override {
    std::vector<int32_t> ids;
    for (const char c : utf8) ids.push_back(static_cast<unsigned char>(c) % 90);
    return ids;
  }
  std::string Decode(absl::Span<const int32_t> ids) const override { return std::string(ids.begin(), ids.end()); }
  int32_t vocabulary_size() const override { return 90; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  std::optional<int32_t> eos_id() const override { return std::nullopt; }
  bool adds_bos() const override { return false; }
  std::string ToJson() const override { return ""; }
  std::string ToConfigJson() const override { return ""; }
};

// Where methods that learn find a tokenizer, text.txt and pairs.jsonl.
inline Workplace TestWorkplace() {
  static const auto* tokenizer = new LetterTokenizer;
  Workplace workplace;
  workplace.tokenizer = tokenizer;
  workplace.directory = ::testing::TempDir();
  std::string text, pairs;
  for (int i = 0; i < 40; ++i) absl::StrAppend(&text, "the cat sat on the mat and the rat sat by it. ");
  for (int i = 0; i < 8; ++i) {
    absl::StrAppend(&pairs, "{\"prompt\": \"say ", i, ": \", \"chosen\": \"yes yes\", \"rejected\": \"oh no\"}\n");
  }
  NIBBLE_CHECK_OK(WriteFile(workplace.directory + "/text.txt", text));
  NIBBLE_CHECK_OK(WriteFile(workplace.directory + "/pairs.jsonl", pairs));
  return workplace;
}

// Applies "step { ... } step { ... }".
inline absl::Status ApplyText(const std::string& text, ir::Graph& graph, int threads = 1, std::vector<LossCurve>* curves = nullptr,
                              const std::string& cache = "") {
  ThreadPool pool(threads);
  Workplace workplace = TestWorkplace();
  workplace.cache = cache;
  Context context(pool, workplace);
  NIBBLE_RETURN_IF_ERROR(ApplyPipeline(context, ParsePipeline(text).step(), graph));
  if (curves != nullptr) *curves = context.curves();
  return absl::OkStatus();
}

// What steps fail with on the tiny model; "" when they do not.
inline std::string ErrorOf(const std::string& steps) {
  ir::Graph graph = TinyGraph();
  return std::string(ApplyText(steps, graph).message());
}

inline QuantScheme WeightScheme(const ir::Graph& graph, const std::string& op) {
  return graph.parameter(*graph.FindOp(op)->weight).Load()->scheme;
}

inline std::vector<int32_t> TinyTokens() { return {5, 17, 3, 96, 0, 42}; }

inline std::vector<float> TinyLogits(const ir::Graph& graph) {
  auto logits = RunReference(graph, TinyTokens());
  EXPECT_OK(logits);
  return *std::move(logits);
}

// The same as TinyLogits by a Plan; `at_once` tokens in a pass.
inline std::vector<float> PlanLogits(const ir::Graph& graph, const kernels::KernelTable& table, int at_once = 6) {
  const std::vector<int32_t> tokens = TinyTokens();
  ThreadPool pool(2);
  const auto plan = Plan::Create(graph, table);
  NIBBLE_CHECK_OK(plan.status());
  const auto session = Session::Create(**plan, pool, {1, 6});
  NIBBLE_CHECK_OK(session.status());
  const size_t vocabulary = (*plan)->vocab_size();
  std::vector<float> logits(tokens.size() * vocabulary), hidden;
  for (size_t t = 0; t < tokens.size(); t += at_once) {
    NIBBLE_CHECK_OK((*session)->Forward({{0, absl::MakeConstSpan(tokens).subspan(t, at_once)}}, &hidden));
    NIBBLE_CHECK_OK((*session)->Logits(hidden.data(), at_once, logits.data() + t * vocabulary));
  }
  return logits;
}

// |b - a| / |a|, Euclidean.
inline double RelativeChange(const std::vector<float>& a, const std::vector<float>& b) {
  double change = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) change += std::pow(a[i] - b[i], 2), size += std::pow(a[i], 2);
  return std::sqrt(change / size);
}

// How far `steps` move the tiny model's logits.
inline double ChangeBy(const std::string& steps) {
  const ir::Graph original = TinyGraph();
  ir::Graph graph = original;
  EXPECT_OK(ApplyText(steps, graph));
  return RelativeChange(TinyLogits(original), TinyLogits(graph));
}

}  // namespace nibble

#endif  // NIBBLE_METHODS_TESTING_H_
