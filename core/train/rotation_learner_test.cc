#include "core/train/rotation_learner.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/ir/passes.h"
#include "core/models/testing.h"
#include "core/train/objectives.h"

namespace nibble::train {
namespace {

// GQA 2; gains folded, head untied.
ir::Graph BaseGraph() {
  ir::Graph graph = AttentiveGraph(4, 2, /*tied=*/true);
  EXPECT_OK(ir::FoldNorms(graph));
  return graph;
}

LearnedRotations Start() { return {ir::RandomOrthogonal(24, 1), {ir::RandomOrthogonal(8, 2), ir::RandomOrthogonal(8, 3)}}; }

QuantScheme Int4(bool activation) {
  QuantScheme scheme;
  scheme.set_format("int4");
  scheme.set_per(activation ? QuantScheme::PER_TOKEN : QuantScheme::PER_ROW);
  scheme.set_asymmetric(activation);
  return scheme;
}

// The base with 4-bit activations, and 4-bit weights where asked.
ir::Graph Student(const ir::Graph& base, bool weights) {
  ir::Graph student = base;
  for (ir::Op& op : student.mutable_ops()) {
    if (op.kind != ir::OpKind::kLinear) continue;
    op.activation = Int4(true);
    if (!weights) continue;
    ir::Parameter& parameter = student.mutable_parameter(*op.weight);
    EXPECT_OK(parameter.Replace(*Encode(Int4(false), parameter.shape(), *parameter.LoadFloats())));
  }
  return student;
}

Sequences RandomText() {
  Rng rng(9);
  Sequences sequences;
  for (int i = 0; i < 12; ++i) {
    std::vector<int32_t> tokens;
    for (int t = 0; t < 10; ++t) tokens.push_back(static_cast<int32_t>(rng.Below(90)));
    sequences.Add(tokens);
  }
  return sequences;
}

class RotationLearnerTest : public ::testing::Test {
 protected:
  double Loss(Learner& learner) {
    auto objective = LanguageModel::Create(sequences_, {12, 64, 0});
    const auto seen = (*objective)->Accumulate(learner, 1);
    EXPECT_OK(seen);
    return seen->loss;
  }

  ThreadPool pool_{2};
  const Machine machine_{pool_, *kernels::AvailableTables().back()};
  const ir::Graph base_ = BaseGraph();
  const Sequences sequences_ = RandomText();
};

// With quantizers off the loss does not depend on the rotations: their gradients
// move along no rotation (SpinQuant's own check).
TEST_F(RotationLearnerTest, WithoutQuantizersNothingPulls) {
  ASSERT_OK_AND_ASSIGN(auto learner, RotationLearner::Create(base_, base_, machine_, Start(), {}));
  const double loss = Loss(*learner);
  ASSERT_OK_AND_ASSIGN(const double norm, learner->Update(1e-9, 1));
  EXPECT_GT(norm, 1e-3);
  EXPECT_LT(learner->last_step().skew_norm, 1e-4 * norm);
  LearnedRotations other = Start();
  other.r1 = ir::RandomOrthogonal(24, 40);
  ASSERT_OK_AND_ASSIGN(auto elsewhere, RotationLearner::Create(base_, base_, machine_, other, {}));
  EXPECT_NEAR(Loss(*elsewhere), loss, 1e-4);
}

// The rotated weights are those of the merging passes.
TEST_F(RotationLearnerTest, RotatesAsThePassesDo) {
  ir::Graph merged = base_;
  const LearnedRotations start = Start();
  ASSERT_OK(ir::RotateResidual(merged, *start.r1, pool_));
  for (int layer = 0; layer < 2; ++layer) ASSERT_OK(ir::RotateValues(merged, layer, start.r2[layer], pool_));
  const ir::Graph student = Student(base_, true), merged_student = Student(merged, true);
  ASSERT_OK_AND_ASSIGN(auto learner, RotationLearner::Create(student, base_, machine_, start, {}));
  ASSERT_OK_AND_ASSIGN(auto frozen, RotationLearner::Create(merged_student, merged, machine_, {}, {}));
  EXPECT_NEAR(Loss(*learner), Loss(*frozen), 2e-3);
}

// Central differences over single entries: off the rotations the loss depends on
// them without any quantizer.
TEST_F(RotationLearnerTest, GradientsMatchCentralDifferences) {
  const auto loss_with = [&](size_t which, size_t entry, double change) {
    LearnedRotations start = Start();
    ir::SquareMatrix& matrix = which == 0 ? *start.r1 : start.r2[which - 1];
    matrix.values[entry] += change;
    auto learner = RotationLearner::Create(base_, base_, machine_, start, {});
    EXPECT_OK(learner);
    return Loss(**learner);
  };
  ASSERT_OK_AND_ASSIGN(auto learner, RotationLearner::Create(base_, base_, machine_, Start(), {}));
  Loss(*learner);
  ASSERT_OK(learner->Update(1e-9, 1));
  for (size_t which = 0; which < 3; ++which) {
    const std::vector<double>& gradient = learner->last_gradient(which);
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::fabs(g));
    for (size_t entry = 0; entry < gradient.size(); entry += 37) {
      const double step = 4e-3, slope = (loss_with(which, entry, step) - loss_with(which, entry, -step)) / (2 * step);
      EXPECT_NEAR(gradient[entry], slope, 0.02 * largest) << which << ", " << entry;
    }
  }
}

// 4-bit activations: the updates are bounded, and every matrix stays a rotation.
TEST_F(RotationLearnerTest, StaysOnRotationsWhileItLearns) {
  for (const bool weights : {false, true}) {
    const ir::Graph student = Student(base_, weights);
    ASSERT_OK_AND_ASSIGN(auto learner, RotationLearner::Create(student, base_, machine_, Start(), {}));
    ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences_, {12, 64, 0}));
    TrainerOptions options;
    options.schedule = {1.5, 0, 25, Decay::kCosine, 0};
    ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, options));
    EXPECT_TRUE(training.finished);
    EXPECT_LT(learner->OrthogonalityError(), 1e-3);
    EXPECT_LE(learner->last_step().alpha, 1.5);
    EXPECT_NE(learner->rotations().r1->values, Start().r1->values);
  }
}

TEST_F(RotationLearnerTest, GoesOnToTheBitAfterARestart) {
  const ir::Graph student = Student(base_, false);
  RotationOptions options;
  options.cayley.momentum = 0.5;
  const auto steps = [&](RotationLearner& learner, int count) {
    for (int i = 0; i < count; ++i) {
      Loss(learner);
      ASSERT_OK(learner.Update(0.5, 1));
    }
  };
  ASSERT_OK_AND_ASSIGN(auto whole, RotationLearner::Create(student, base_, machine_, Start(), options));
  steps(*whole, 4);
  ASSERT_OK_AND_ASSIGN(auto half, RotationLearner::Create(student, base_, machine_, Start(), options));
  steps(*half, 2);
  const std::string path = TestTempDir() + "/checkpoint.safetensors";
  ASSERT_OK(half->Save(path, "note"));
  ASSERT_OK_AND_ASSIGN(auto resumed, RotationLearner::Create(student, base_, machine_, Start(), options));
  ASSERT_OK_AND_ASSIGN(const std::string note, resumed->Restore(path));
  EXPECT_EQ(note, "note");
  EXPECT_EQ(resumed->step(), 2);
  steps(*resumed, 2);
  EXPECT_EQ(resumed->rotations().r1->values, whole->rotations().r1->values);
  EXPECT_EQ(resumed->rotations().r2[1].values, whole->rotations().r2[1].values);
}

TEST_F(RotationLearnerTest, RotationFilesRoundTrip) {
  const std::string path = TestTempDir() + "/rotations.safetensors";
  ASSERT_OK(WriteRotations(path, Start()));
  ASSERT_OK_AND_ASSIGN(const LearnedRotations read, ReadRotations(path));
  EXPECT_EQ(read.r1->values, Start().r1->values);
  ASSERT_EQ(read.r2.size(), 2);
  EXPECT_EQ(read.r2[1].values, Start().r2[1].values);
  EXPECT_FALSE(ReadRotations(path + "x").ok());
}

TEST_F(RotationLearnerTest, AnOrderThatDoesNotFitIsAnError) {
  EXPECT_FALSE(RotationLearner::Create(base_, base_, machine_, {ir::RandomOrthogonal(23, 1), {}}, {}).ok());
}

}  // namespace
}  // namespace nibble::train
