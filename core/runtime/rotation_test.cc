// Rotations keep the function of a model, each alone and all together, for any
// orthogonal matrix (SpinQuant, section 3.1; QuaRot), on both executors.

#include <cmath>

#include "core/base/testing.h"
#include "core/ir/adapters.h"
#include "core/ir/passes.h"
#include "core/ir/rotations.h"
#include "core/models/testing.h"
#include "core/runtime/plan.h"
#include "core/runtime/reference.h"
#include "core/runtime/session.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kTokens = {1, 17, 90, 4, 4, 55, 63, 8, 96};

struct RotationCase {
  int64_t heads, kv_heads;
  bool tied;
};

ir::Graph Build(const RotationCase& shape) { return AttentiveGraph(shape.heads, shape.kv_heads, shape.tied); }

std::vector<float> PlanLogits(const ir::Graph& graph) {
  const auto plan = Plan::Create(graph, *kernels::AvailableTables().back());
  EXPECT_OK(plan);
  ThreadPool pool(2);
  const auto session = Session::Create(**plan, pool, {});
  std::vector<float> hidden, logits(kTokens.size() * graph.vocab_size());
  EXPECT_OK((*session)->Forward({{0, kTokens}}, &hidden));
  EXPECT_OK((*session)->Logits(hidden.data(), static_cast<int64_t>(kTokens.size()), logits.data()));
  return logits;
}

void ExpectSameFunction(const std::vector<float>& expected, const ir::Graph& graph) {
  ASSERT_OK_AND_ASSIGN(const std::vector<float> reference, RunReference(graph, kTokens));
  const std::vector<float> planned = PlanLogits(graph);
  float largest = 0;
  for (const float v : expected) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(reference[i], expected[i], 1e-4f * largest) << i;
    ASSERT_NEAR(planned[i], expected[i], 1e-4f * largest) << i;
  }
}

class Rotations : public ::testing::TestWithParam<RotationCase> {
 protected:
  Rotations() : graph_(Build(GetParam())), expected_(*RunReference(graph_, kTokens)) { EXPECT_OK(ir::FoldNorms(graph_)); }

  ThreadPool pool_{2};
  ir::Graph graph_;
  const std::vector<float> expected_;
};

TEST_P(Rotations, FoldingKeepsTheFunction) { ExpectSameFunction(expected_, graph_); }

TEST_P(Rotations, R1) {
  ASSERT_OK(ir::RotateResidual(graph_, ir::RandomOrthogonal(24, 1), pool_));
  ExpectSameFunction(expected_, graph_);
}

TEST_P(Rotations, R2) {
  for (int layer = 0; layer < graph_.num_layers(); ++layer) ASSERT_OK(ir::RotateValues(graph_, layer, ir::RandomOrthogonal(8, 2 + layer), pool_));
  ExpectSameFunction(expected_, graph_);
}

TEST_P(Rotations, R3) {
  ASSERT_OK(ir::RotateQueriesAndKeys(graph_));
  ExpectSameFunction(expected_, graph_);
}

TEST_P(Rotations, R4) {
  ASSERT_OK(ir::RotateInputs(graph_, {{"model.layers.0.mlp.down_proj", 40}, {"model.layers.1.mlp.down_proj", 20}}, pool_));
  ExpectSameFunction(expected_, graph_);
}

TEST_P(Rotations, AllTogether) {
  ASSERT_OK_AND_ASSIGN(const ir::SquareMatrix r1, ir::RandomHadamard(24, 5));
  ASSERT_OK(ir::RotateResidual(graph_, r1, pool_));
  ASSERT_OK_AND_ASSIGN(const ir::SquareMatrix r2, ir::RandomHadamard(8, 6));
  ASSERT_OK(ir::RotateValues(graph_, 1, r2, pool_));
  ASSERT_OK(ir::RotateQueriesAndKeys(graph_));
  ASSERT_OK(ir::RotateInputs(graph_, {{"model.layers.0.mlp.down_proj", 40}, {"model.layers.1.mlp.down_proj", 40}}, pool_));
  ExpectSameFunction(expected_, graph_);
  const std::vector<ir::OnlineRotation> online = ir::OnlineRotationsOf(graph_);
  ASSERT_EQ(online.size(), 4);
  EXPECT_EQ(online[0].module, "model.layers.0.self_attn.attention");
  EXPECT_EQ(online[0].block, 8);
  EXPECT_EQ(online[1].module, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(online[1].block, 40);
}

INSTANTIATE_TEST_SUITE_P(Models, Rotations,
                         ::testing::Values(RotationCase{4, 4, true}, RotationCase{4, 2, false}, RotationCase{4, 1, true}),
                         [](const auto& info) { return absl::StrCat("ratio", info.param.heads / info.param.kv_heads); });

TEST(RotationMatrices, AreOrthogonal) {
  ASSERT_OK_AND_ASSIGN(const ir::SquareMatrix hadamard, ir::RandomHadamard(24, 3));
  for (const ir::SquareMatrix& r : {hadamard, ir::RandomOrthogonal(24, 3)}) {
    for (int64_t i = 0; i < r.size; ++i) {
      for (int64_t j = 0; j < r.size; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < r.size; ++k) dot += r.values[i * r.size + k] * r.values[j * r.size + k];
        ASSERT_NEAR(dot, i == j, 1e-12);
      }
    }
  }
}

TEST(RotationErrors, SayWhatToDo) {
  ThreadPool pool(1);
  const auto message = [](const absl::Status& status) { return std::string(status.message()); };
  const ir::SquareMatrix r1 = ir::RandomOrthogonal(24, 1);
  ir::Graph tied = Build({4, 2, true});
  EXPECT_THAT(message(ir::RotateResidual(tied, r1, pool)), HasSubstr("untie"));
  ir::Graph graph = Build({4, 2, false});
  EXPECT_THAT(message(ir::RotateResidual(graph, r1, pool)), HasSubstr("fold its gain"));
  ASSERT_OK(ir::FoldNorms(graph));
  EXPECT_THAT(message(ir::RotateResidual(graph, ir::RandomOrthogonal(23, 1), pool)), HasSubstr("order 23, expected 24"));
  EXPECT_THAT(message(ir::AttachOnlineRotations(graph, {{"model.layers.0.mlp.down_proj", 7}})), HasSubstr("do not divide 40"));
  EXPECT_THAT(message(ir::AttachOnlineRotations(graph, {{"model.norm", 8}})), HasSubstr("no linear or attention"));
  ir::Parameter& weight = graph.mutable_parameter(*graph.FindOp("model.layers.1.mlp.up_proj")->weight);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> values, weight.LoadFloats());
  QuantScheme int8;
  int8.set_format("int8");
  ASSERT_OK_AND_ASSIGN(EncodedTensor encoded, Encode(int8, weight.shape(), values));
  ASSERT_OK(weight.Replace(std::move(encoded)));
  EXPECT_THAT(message(ir::RotateResidual(graph, r1, pool)), HasSubstr("up_proj.weight is already quantized"));
  ASSERT_OK(ir::RotateQueriesAndKeys(graph));
  EXPECT_THAT(message(ir::RotateQueriesAndKeys(graph)), HasSubstr("rotated already"));
}

}  // namespace
}  // namespace nibble
