// SmolLM2-135M against independent engines (the shared reference data's
// golden/smollm2.json): token ids, logits, perplexities, choices, and the
// perplexities of quantized variants. Needs the model (NIBBLE_SMOLLM2_GGUF) and
// the shared data; says so when it skips.

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/testing.h"
#include "core/ir/passes.h"
#include "core/runtime/session.h"
#include "datasets/task.h"
#include "eval/perplexity.h"
#include "eval/task.h"
#include "experiments/measure.h"
#include "methods/testing.h"

namespace nibble {
namespace {

class Oracle : public ::testing::Test {
 protected:
  void SetUp() override {
    NIBBLE_REQUIRE_SHARED();
    const char* gguf = std::getenv("NIBBLE_SMOLLM2_GGUF");
    if (gguf == nullptr || !FileExists(gguf)) GTEST_SKIP() << "needs SmolLM2: run ./nibble fetch smollm2-135m, or set NIBBLE_SMOLLM2_GGUF";
    auto model = OpenModel(absl::StrCat("decoded:", gguf));
    ASSERT_OK(model);
    model_ = std::make_unique<OpenedModel>(*std::move(model));
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(SharedDir() + "/golden/smollm2.json"));
    ASSERT_OK_AND_ASSIGN(golden_, ParseJson(text, "smollm2.json"));
  }

  const text::Tokenizer& tokenizer() const { return *model_->source.tokenizer; }

  std::unique_ptr<Plan> MakePlan(const ir::Graph& graph) {
    auto plan = Plan::Create(graph, **kernels::ChooseTable());
    EXPECT_OK(plan);
    return *std::move(plan);
  }

  // Perplexity of the first windows of WikiText-2's test text.
  Metric WikiPerplexity(const ir::Graph& graph, eval::WindowConvention convention, int64_t window, int64_t limit) {
    const auto text = ReadFile(SharedDir() + "/data/wikitext-2-raw/wiki.test.raw");
    EXPECT_OK(text);
    auto windows = eval::MakeWindows("wikitext-2", tokenizer(), *text, {convention, window, limit});
    EXPECT_OK(windows);
    const auto plan = MakePlan(graph);
    auto metrics = eval::MeasurePerplexity(*plan, pool_, *windows);
    EXPECT_OK(metrics);
    return (*metrics)[0];
  }

  // Each window's mean negative log-likelihood against the golden file's.
  void ExpectWindows(const Metric& metric, const nlohmann::json& golden) {
    for (int i = 0; i < metric.block_sum_size(); ++i) {
      const double mean = metric.block_sum(i) / metric.block_weight(i);
      EXPECT_NEAR(mean, golden["per_window_nll"][i].get<double>(), 1e-3) << "window " << i;
    }
  }

  ir::Graph Quantized(const std::string& steps) {
    ir::Graph graph = model_->graph;
    EXPECT_OK(ApplyText(steps, graph, 2));
    return graph;
  }

  static TaskDescription Known(const std::string& name) {
    auto known = datasets::FindKnownTask(name);
    NIBBLE_CHECK(known.has_value());
    return *std::move(known);
  }

  eval::TaskResult Score(const Plan& plan, const TaskDescription& description, int64_t limit) {
    // Known files are found below the shared folder, as if it were beside a config.
    const auto resolved = datasets::ResolveFiles(description, SharedDir() + "/data", "");
    NIBBLE_CHECK_OK(resolved.status());
    const auto task = datasets::ReadTask(*resolved, {.limit = limit});
    NIBBLE_CHECK_OK(task.status());
    auto result = eval::MeasureTask(plan, pool_, tokenizer(), *task, {});
    NIBBLE_CHECK_OK(result.status());
    return *std::move(result);
  }

  ThreadPool pool_{AvailableCpus()};
  std::unique_ptr<OpenedModel> model_;
  nlohmann::json golden_;
};

TEST_F(Oracle, LogitsOfPrompts) {
  const auto plan = MakePlan(model_->graph);
  for (const auto& prompt : golden_["3b_logits"]["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    EXPECT_EQ(tokenizer().Encode(prompt["text"].get<std::string>()), ids);
    ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool_, {1, 64}));
    std::vector<float> hidden, logits(plan->vocab_size());
    ASSERT_OK(session->Forward({{0, ids}}, &hidden));
    ASSERT_OK(session->Logits(hidden.data() + hidden.size() - plan->hidden_size(), 1, logits.data()));
    for (const auto& top : prompt["top5"]) EXPECT_NEAR(logits[top[0].get<int>()], top[2].get<float>(), 1e-3);
    EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(), prompt["top5"][0][0].get<int>());
  }
}

TEST_F(Oracle, PerplexityByBothConventions) {
  ExpectWindows(WikiPerplexity(model_->graph, eval::WindowConvention::kGptq, 1024, 3), golden_["3c_ppl_w1024"]);
  const Metric gptq = WikiPerplexity(model_->graph, eval::WindowConvention::kGptq, 2048, 2);
  ExpectWindows(gptq, golden_["3c_ppl_w2048"]);
  EXPECT_NEAR(gptq.value() / 18.9754, 1, 1e-3);
  ExpectWindows(WikiPerplexity(model_->graph, eval::WindowConvention::kLlamaCpp, 512, 4), golden_["3d_llamacpp_512"]);
}

TEST_F(Oracle, Choices) {
  const auto plan = MakePlan(model_->graph);
  for (const auto& [name, key] : {std::pair("hellaswag", "3e_hellaswag200"), std::pair("arc_easy", "3e_arc_easy200_answer_prompt")}) {
    const eval::TaskResult result = Score(*plan, Known(name), 40);
    for (size_t i = 0; i < result.items.size(); ++i) {
      const auto& golden = golden_[key]["items"][i];
      EXPECT_EQ(result.items[i].prediction(), golden["pred"].get<int>()) << name << " " << i;
      EXPECT_EQ(result.items[i].prediction_norm(), golden["pred_norm"].get<int>()) << name << " " << i;
      for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], golden["ll"][c].get<double>(), 2e-3) << name << " " << i;
    }
  }
}

// The query as it stands is a description of one line over the known one.
TEST_F(Oracle, ChoicesOfAUsersDescription) {
  const auto plan = MakePlan(model_->graph);
  TaskDescription mine;
  mine.set_name("arc_raw");
  mine.set_version("1");
  mine.set_base("arc_easy");
  mine.set_context("{query}");
  ASSERT_OK_AND_ASSIGN(const TaskDescription description, datasets::WithBase(mine));
  const eval::TaskResult result = Score(*plan, description, 12);
  for (size_t i = 0; i < result.items.size(); ++i) {
    const auto& golden = golden_["3e_arc_easy200_raw_query"]["items"][i];
    for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], golden["ll"][c].get<double>(), 2e-3) << i;
  }
}

TEST_F(Oracle, LastWords) {
  const auto plan = MakePlan(model_->graph);
  const eval::TaskResult result = Score(*plan, Known("lambada_openai"), 40);
  double sum = 0;
  for (size_t i = 0; i < result.items.size(); ++i) {
    const auto& golden = golden_["3f_lambada300"]["items"][i];
    EXPECT_NEAR(result.items[i].log_likelihoods[0], golden[0].get<double>(), 2e-3) << i;
    EXPECT_EQ(result.items[i].greedy != 0, golden[1].get<int>() != 0) << i;
    EXPECT_EQ(result.items[i].target_tokens[0], golden[2].get<int>()) << i;
    sum -= golden[0].get<double>();
  }
  EXPECT_NEAR(result.metrics[0].value() / std::exp(sum / 40), 1, 1e-3);
}

// Sentences as they stand, with a BOS before them and with nothing.
TEST_F(Oracle, MinimalPairs) {
  const auto plan = MakePlan(model_->graph);
  for (const char* paradigm : {"anaphor_gender_agreement", "determiner_noun_agreement_1"}) {
    TaskDescription description = Known(absl::StrCat("blimp_sentences_", paradigm));
    for (const auto& [start, key] : {std::pair(TaskDescription::PREFIX_TOKEN, "_bos1"), std::pair(TaskDescription::FIRST_TOKEN, "_nobos")}) {
      description.set_start(start);
      const eval::TaskResult result = Score(*plan, description, 20);
      const auto& golden = golden_[absl::StrCat("3g_blimp_", paradigm, key)]["first20"];
      for (size_t i = 0; i < 20; ++i) {
        for (size_t c = 0; c < 2; ++c) EXPECT_NEAR(result.items[i].log_likelihoods[c], golden[i][c].get<double>(), 3e-3) << paradigm << key << " " << i;
        EXPECT_EQ(result.metrics[0].block_sum(i) != 0, golden[i][0].get<double>() > golden[i][1].get<double>()) << paradigm << key << " " << i;
      }
    }
  }
}

struct QuantizedRow {
  const char* name;
  const char* steps;
  double perplexity;  // of the first two windows of 2,048
  double tolerance;   // of the ratio to it
};

// Weights are the oracle's to the bit, so that fp32 sums in another order and its
// cross-entropy in fp32 (1.6e-5 of the perplexity) are all that differs.
constexpr double kWeights = 5e-4;
// A last-bit difference in an activation moves it by a step of its quantizer now and then,
// and later layers see that.
constexpr double kInt8Activations = 0.01;
// Of 15 steps one is a seventh of the largest activation, and the model is past predicting
// anything: at 9.25 nats a token 0.06 of them, as between two orders of summation, is 6 %.
constexpr double kInt4Activations = 0.15;

TEST_F(Oracle, QuantizedPerplexities) {
  const QuantizedRow rows[] = {
      {"w4g32_sym_7", "step { [nibble.rtn] { group_size: 32 } }", 26.4733, kWeights},
      {"w4g32_sym_7.5", "step { [nibble.rtn] { group_size: 32 divisor: HALF_RANGE } }", 26.4318, kWeights},
      {"w4g32_sym_7_div", "step { [nibble.rtn] { group_size: 32 rounding: DIVISION } }", 26.5148, kWeights},
      {"w4_perchannel_7", "step { [nibble.rtn] {} }", 43.5562, kWeights},
      {"w8_perchannel_torchao", "step { [nibble.rtn] { bits: 8 divisor: HALF_RANGE } }", 19.0490, kWeights},
      {"w2g32_asym", "step { [nibble.rtn] { bits: 2 group_size: 32 asymmetric: true } }", 23615.7907, kWeights},
      {"llama32_8da4w_7", "step { [nibble.llama32_ptq] {} }", 27.2432, kInt8Activations},
      {"llama32_8da4w_7.5", "step { [nibble.llama32_ptq] { divisor: HALF_RANGE } }", 27.3652, kInt8Activations},
      // The recipe's steps, since scales in bf16 are those of the int4 groups alone.
      {"llama32_8da4w_7.5_bf16scale",
       "step { [nibble.rtn] { group_size: 32 divisor: HALF_RANGE scale_type: BF16 } } "
       "step { [nibble.rtn] { bits: 8 divisor: HALF_RANGE layers: \"embedding\" layers: \"head\" } } "
       "step { [nibble.activations] { layers: \"blocks\" layers: \"head\" } }",
       28.0158, kInt8Activations},
      {"8da4w_7_blocks_only", "step { [nibble.rtn] { group_size: 32 } } step { [nibble.activations] {} }", 27.1357, kInt8Activations},
      {"w4a4_pertoken", "step { [nibble.rtn] {} } step { [nibble.activations] { bits: 4 asymmetric: false } }", 10450.7437, kInt4Activations},
  };
  for (const QuantizedRow& row : rows) {
    const double measured = WikiPerplexity(Quantized(row.steps), eval::WindowConvention::kGptq, 2048, 2).value();
    std::printf("%-28s measured %.4f, oracle %.4f\n", row.name, measured, row.perplexity);
    EXPECT_NEAR(measured / row.perplexity, 1, row.tolerance) << row.name;
  }
}

}  // namespace
}  // namespace nibble
