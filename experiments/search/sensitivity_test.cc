#include "experiments/search/sensitivity.h"

#include <numeric>

#include "eval/divergence.h"
#include "methods/testing.h"

namespace nibble {
namespace {

// The mean divergence of the reference executor's logits.
double ReferenceDivergence(const ir::Graph& original, const ir::Graph& changed) {
  const std::vector<float> p = TinyLogits(original), q = TinyLogits(changed);
  const int64_t vocab = original.vocab_size(), tokens = static_cast<int64_t>(p.size()) / vocab;
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t) sum += eval::KlDivergence(p.data() + t * vocab, q.data() + t * vocab, vocab);
  return sum / static_cast<double>(tokens);
}

struct PartCase {
  bool tied;
  std::string layers;
  ModelPart part;
};

class OutputProbeOf : public ::testing::TestWithParam<PartCase> {};

TEST_P(OutputProbeOf, FollowsAChangeOfAPartToTheOutput) {
  const ir::Graph original = TinyGraph(GetParam().tied);
  ir::Graph changed = original;
  ASSERT_OK(ApplyText(absl::StrCat("step { [nibble.rtn] { bits: 3 ", GetParam().layers, " } }"), changed));
  ThreadPool pool(2);
  train::Sequences sequences;
  sequences.Add(TinyTokens());
  ASSERT_OK_AND_ASSIGN(auto batches, calibration::EmbedBatches(original, sequences, 1, 0));
  ASSERT_OK_AND_ASSIGN(const kernels::KernelTable* table, kernels::ChooseTable());
  ASSERT_OK_AND_ASSIGN(const auto probe, OutputProbe::Create(original, {pool, *table}, std::move(batches)));
  ASSERT_OK_AND_ASSIGN(const double loss, probe->Divergence(changed, GetParam().part));
  EXPECT_GT(loss, 1e-6);
  EXPECT_NEAR(loss, ReferenceDivergence(original, changed), 1e-3 * loss);
}

INSTANTIATE_TEST_SUITE_P(
    Parts, OutputProbeOf,
    ::testing::Values(PartCase{true, "layers: \"embedding\" layers: \"head\"", {.embedding = true, .head = true}},
                      PartCase{false, "layers: \"embedding\"", {.embedding = true}},
                      PartCase{false, "layers: \"head\"", {.first = 2, .end = 2, .head = true}},
                      PartCase{true, "layers: \"model.layers.1.*\"", {.first = 1, .end = 2}},
                      PartCase{false, "layers: \"*\"", {.embedding = true, .first = 0, .end = 2, .head = true}}));

}  // namespace
}  // namespace nibble
