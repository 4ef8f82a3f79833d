// A whole model, llama2.c's stories260K, against fp64: token ids, logits and
// likelihood on both executors.

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/golden/golden_testing.h"
#include "core/io/model_loader.h"
#include "core/ir/passes.h"
#include "core/kernels/kernel_table.h"
#include "core/models/llama.h"
#include "core/quant/encoded.h"
#include "core/runtime/plan.h"
#include "core/runtime/reference.h"
#include "core/runtime/session.h"

namespace nibble {
namespace {

constexpr char kText[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
constexpr double kMeanNegativeLogLikelihood = 0.180356;

class Stories260K : public GoldenTest {
 protected:
  Stories260K() : GoldenTest("stories260K.safetensors") {}

  void SetUp() override {
    GoldenTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_OK_AND_ASSIGN(model_, io::LoadModel(SharedDir() + "/models/stories260K/stories260K.bin"));
    ASSERT_OK_AND_ASSIGN(graph_, BuildLlama(model_.config, model_.weights));
    const Tensor ids = Golden("ids");
    ids_.assign(ids.as<int32_t>().begin(), ids.as<int32_t>().end());
  }

  // Mean over the tokens after the first of -log softmax(logits)[token].
  double MeanNegativeLogLikelihood(const std::vector<float>& logits) const {
    const int64_t vocab = graph_.vocab_size();
    double sum = 0;
    for (size_t t = 0; t + 1 < ids_.size(); ++t) {
      const float* row = &logits[t * vocab];
      const double max = *std::max_element(row, row + vocab);
      double total = 0;
      for (int64_t i = 0; i < vocab; ++i) total += std::exp(row[i] - max);
      sum += max + std::log(total) - row[ids_[t + 1]];
    }
    return sum / static_cast<double>(ids_.size() - 1);
  }

  absl::StatusOr<std::vector<float>> PlanLogits(const kernels::KernelTable& table) const {
    NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(graph_, table));
    ThreadPool pool(2);
    const int64_t count = static_cast<int64_t>(ids_.size());
    NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(*plan, pool, {1, count}));
    std::vector<float> hidden, logits(count * plan->vocab_size());
    NIBBLE_RETURN_IF_ERROR(session->Forward({{0, ids_}}, &hidden));
    NIBBLE_RETURN_IF_ERROR(session->Logits(hidden.data(), count, logits.data()));
    return logits;
  }

  // Logits by executor and table.
  absl::StatusOr<std::map<std::string, std::vector<float>>> LogitsEverywhere() const {
    std::map<std::string, std::vector<float>> results;
    NIBBLE_ASSIGN_OR_RETURN(results["reference"], RunReference(graph_, ids_));
    for (const kernels::KernelTable* table : kernels::AvailableTables()) {
      NIBBLE_ASSIGN_OR_RETURN(results[table->name], PlanLogits(*table));
    }
    return results;
  }

  io::LoadedModel model_;
  ir::Graph graph_;
  std::vector<int32_t> ids_;
};

TEST_F(Stories260K, TokenIds) {
  ASSERT_NE(model_.tokenizer, nullptr);
  ASSERT_TRUE(model_.tokenizer->bos_id().has_value());
  std::vector<int32_t> ids = model_.tokenizer->Encode(kText);
  EXPECT_EQ(model_.tokenizer->Decode(ids), kText);
  ids.insert(ids.begin(), *model_.tokenizer->bos_id());
  EXPECT_EQ(ids, ids_);
}

TEST_F(Stories260K, LogitsAndLikelihood) {
  const Tensor expected = Golden("logits");
  ASSERT_OK_AND_ASSIGN(const auto results, LogitsEverywhere());
  for (const auto& [name, logits] : results) {
    EXPECT_LT(MaxError(logits, expected.as<double>()), 1e-4) << name;
    EXPECT_NEAR(MeanNegativeLogLikelihood(logits), kMeanNegativeLogLikelihood, 1e-4) << name;
  }
}

TEST_F(Stories260K, Int8WeightsKeepTheLikelihood) {
  QuantScheme scheme;
  scheme.set_format("int8");
  scheme.set_per(QuantScheme::PER_ROW);
  ASSERT_OK_AND_ASSIGN(const std::vector<size_t> blocks, ir::SelectOps(graph_, {"blocks"}));
  for (const size_t i : blocks) {
    ir::Parameter& weight = graph_.mutable_parameter(*graph_.ops()[i].weight);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> values, weight.LoadFloats());
    ASSERT_OK_AND_ASSIGN(EncodedTensor encoded, Encode(scheme, weight.shape(), values));
    ASSERT_OK(weight.Replace(std::move(encoded)));
  }
  ASSERT_OK_AND_ASSIGN(const auto results, LogitsEverywhere());
  for (const auto& [name, logits] : results) {
    EXPECT_NEAR(MeanNegativeLogLikelihood(logits) / kMeanNegativeLogLikelihood, 1, 0.02) << name;
  }
}

}  // namespace
}  // namespace nibble
