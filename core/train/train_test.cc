// What training is made of, against values worked out by hand, and the loop as
// a whole: it learns, it resumes to the bit, and what it stores is what it saw.
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "core/io/safetensors.h"
#include "core/base/divide.h"
#include "core/base/file.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/golden/golden_testing.h"
#include "core/ir/adapters.h"
#include "core/ir/passes.h"
#include "core/models/llama.h"
#include "core/quant/format.h"
#include "core/runtime/reference.h"
#include "core/train/fake_quantize.h"
#include "core/train/objectives.h"
#include "core/train/weight_learner.h"

namespace nibble::train {
namespace {

QuantScheme Integers(int bits, int group, QuantScheme::Divisor divisor) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  if (group > 0) {
    scheme.set_per(QuantScheme::PER_GROUP);
    scheme.set_group_size(group);
  }
  scheme.set_divisor(divisor);
  return scheme;
}

QuantScheme TokenInt8() {
  QuantScheme scheme;
  scheme.set_format("int8");
  scheme.set_per(QuantScheme::PER_TOKEN);
  scheme.set_asymmetric(true);
  scheme.set_dynamic(true);
  return scheme;
}

class TrainTest : public ::testing::Test {
 protected:
  TrainTest() { SetProgressEnabled(false); }

  LlamaConfig Config(bool tied = true) {
    LlamaConfig config;
    config.hidden_size = 24;
    config.intermediate_size = 40;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 6;
    config.vocab_size = 29;
    config.max_position_embeddings = 64;
    config.tie_word_embeddings = tied;
    return config;
  }

  ir::Graph Graph(const LlamaConfig& config) {
    auto graph = BuildLlama(config, SyntheticWeights(config, 1));
    EXPECT_OK(graph);
    return *std::move(graph);
  }

  // Everything trains; matrices inside the blocks pass through `scheme`.
  std::vector<TrainedParameter> All(const ir::Graph& graph, const std::optional<QuantScheme>& scheme) {
    std::vector<TrainedParameter> trained;
    for (size_t id = 0; id < graph.parameters().size(); ++id) {
      TrainedParameter parameter;
      parameter.id = static_cast<ir::ParameterId>(id);
      parameter.master = graph.parameters()[id].LoadFloats().value();
      if (graph.Users(parameter.id)[0]->kind == ir::OpKind::kLinear) parameter.scheme = scheme;
      trained.push_back(std::move(parameter));
    }
    return trained;
  }

  // Token t + 1 is a function of token t: easy to learn.
  Sequences Counting(int64_t count, int64_t length) {
    Sequences sequences;
    for (int64_t s = 0; s < count; ++s) {
      std::vector<int32_t> tokens;
      for (int64_t t = 0; t < length; ++t) tokens.push_back(static_cast<int32_t>((5 * s + 3 * t) % 29));
      sequences.Add(tokens);
    }
    return sequences;
  }

  TrainerOptions Options(int64_t steps, const std::string& folder = "") {
    TrainerOptions options;
    options.schedule = {.peak = 0.02, .warmup = 2, .steps = steps, .decay = Decay::kCosine, .floor = 0.1};
    options.folder = folder;
    options.identity = "test";
    return options;
  }

  ThreadPool pool_{1};
  const Machine machine_{pool_, *kernels::AvailableTables().back()};
};

// absmax / 7.5: code of the positive end is 8 before it is cut off, of the
// negative end -8, which is inside the grid.
TEST_F(TrainTest, StraightThroughMaskOfWeights) {
  const std::vector<float> master = {0.75f, -0.30f, 0.11f, -0.75f, 0.52f, -0.06f, 0.0f, 0.33f};
  std::vector<float> decoded(8);
  std::vector<uint8_t> in_range;
  ASSERT_OK(FakeQuantizeWeights(machine_, Integers(4, 8, QuantScheme::HALF_RANGE), 1, 8, master.data(), decoded.data(), &in_range));
  const std::vector<float> expected = {0.7f, -0.3f, 0.1f, -0.8f, 0.5f, -0.1f, 0.0f, 0.3f};
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(decoded[i], expected[i], 1e-6) << i;
  EXPECT_EQ(in_range, (std::vector<uint8_t>{0, 1, 1, 1, 1, 1, 1, 1}));
}

// absmax / 7 cuts nothing off.
TEST_F(TrainTest, NoMaskWhereNothingIsCutOff) {
  const std::vector<float> master = {0.75f, -0.30f, 0.11f, -0.75f};
  std::vector<float> decoded(4);
  std::vector<uint8_t> in_range;
  ASSERT_OK(FakeQuantizeWeights(machine_, Integers(4, 4, QuantScheme::MAX_CODE), 1, 4, master.data(), decoded.data(), &in_range));
  EXPECT_TRUE(in_range.empty());
}

// [-1, 0, .5, 3]: scale 4/255, zero 64 of 255; codes 0, 64, 96, 255. A row
// whose end is cut off: (max - min) / 255 = 1, zero = round(0.6) = 1, and
// 254.4 becomes 254 + 1 = 255, inside; 254.6 becomes 256.
TEST_F(TrainTest, StraightThroughMaskOfActivations) {
  const std::vector<float> x = {-1.0f, 0.0f, 0.5f, 3.0f}, dy = {1, 2, 3, 4};
  std::vector<float> y(4), dx(4, 10.0f);
  ASSERT_OK(FakeQuantizeActivations(machine_, TokenInt8(), 1, 4, x.data(), y.data()));
  EXPECT_NEAR(y[0], -1.0039216, 1e-6);
  EXPECT_EQ(y[1], 0);
  EXPECT_NEAR(y[2], 0.5019608, 1e-6);
  EXPECT_NEAR(y[3], 2.9960784, 1e-6);
  ASSERT_OK(StraightThroughActivations(machine_, TokenInt8(), 1, 4, x.data(), dy.data(), dx.data()));
  EXPECT_EQ(dx, (std::vector<float>{11, 12, 13, 14}));
  const std::vector<float> cut = {-0.4f, 254.6f};  // scale 1, zero round(0.4) = 0: codes 0 and 255
  dx.assign(2, 0);
  ASSERT_OK(StraightThroughActivations(machine_, TokenInt8(), 1, 2, cut.data(), dy.data(), dx.data()));
  EXPECT_EQ(dx, (std::vector<float>{1, 2}));
  const std::vector<float> above = {-0.6f, 254.4f};  // zero 1: 254 + 1 = 255
  dx.assign(2, 0);
  ASSERT_OK(StraightThroughActivations(machine_, TokenInt8(), 1, 2, above.data(), dy.data(), dx.data()));
  EXPECT_EQ(dx, (std::vector<float>{1, 2}));
}

// int2, scale 1: codes -2 .. 1. w = .3 -> 0 (inside, q - w = -.3), 2.6 -> 3, cut
// to 1. n = 2, q_max = 1: d log s = 1 / sqrt 2 (g0 (-.3) + g1 1).
TEST_F(TrainTest, GradientOfALearnedScale) {
  QuantScheme scheme = Integers(2, 2, QuantScheme::MAX_CODE);
  const std::vector<float> master = {0.3f, 2.6f}, scales = {1.0f};
  std::vector<float> decoded(2), gradient = {10, 20}, scale_gradient = {0};
  FakeQuantizeWithScales(machine_, scheme, 1, 2, master.data(), scales, decoded.data());
  EXPECT_EQ(decoded, (std::vector<float>{0, 1}));
  LearnedScaleGradients(machine_, scheme, 1, 2, master.data(), scales, gradient.data(), absl::MakeSpan(scale_gradient));
  EXPECT_EQ(gradient, (std::vector<float>{10, 0}));
  EXPECT_NEAR(scale_gradient[0], (10 * -0.3 + 20) / std::sqrt(2.0), 1e-5);
}

// Scales move, and what is stored is what the last update left.
TEST_F(TrainTest, LearnedScalesAreStored) {
  ir::Graph graph = Graph(Config());
  for (const QuantScheme::ScaleType type : {QuantScheme::FP32, QuantScheme::FP16}) {
    QuantScheme scheme = Integers(2, 16, QuantScheme::MAX_CODE);
    scheme.set_scale_type(type);
    std::vector<TrainedParameter> trained = All(graph, scheme);
    for (TrainedParameter& parameter : trained) parameter.learn_scales = CanLearnScales(parameter);
    const ir::ParameterId id = *graph.FindOp("model.layers.0.mlp.up_proj")->weight;
    ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, std::move(trained), {}));
    ir::Graph before = graph, after = graph;
    ASSERT_OK(learner->Store(before));
    ASSERT_OK_AND_ASSIGN(const EncodedTensor rule, Encode(scheme, graph.parameter(id).shape(), graph.parameter(id).LoadFloats().value()));
    // exp(log(s)) may differ from s in its last bit.
    EXPECT_THAT(before.parameter(id).LoadFloats().value(), ::testing::Pointwise(::testing::FloatNear(1e-4), Decode(rule)));
    const Sequences sequences = Counting(30, 12);
    ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 4, .micro_tokens = 100, .seed = 3}));
    ASSERT_OK(Train(*learner, *objective, Options(10)));
    ASSERT_OK(learner->Store(after));
    EXPECT_NE(ToFloats(before.parameter(id).Load()->buffer("scales")), ToFloats(after.parameter(id).Load()->buffer("scales")));
    TokenBatch batch;
    batch.Append(sequences.tokens(2));
    ASSERT_OK(learner->tape().Forward(batch));
    const std::vector<float> seen(learner->tape().hidden().begin(), learner->tape().hidden().end());
    ASSERT_OK_AND_ASSIGN(auto frozen, WeightLearner::Create(after, machine_, {}, {}));
    ASSERT_OK(frozen->tape().Forward(batch));
    // Norm gains and the table are stored in bf16; the rest is equal to the bit.
    for (size_t i = 0; i < seen.size(); ++i) ASSERT_NEAR(frozen->tape().hidden()[i], seen[i], 0.05 * (1 + std::fabs(seen[i])));
  }
}

TEST_F(TrainTest, Bf16MastersStayOnTheirGridAndResume) {
  const ir::Graph graph = Graph(Config());
  const Sequences sequences = Counting(30, 12);
  std::vector<double> losses[2];
  for (const bool interrupted : {false, true}) {
    const std::string folder = absl::StrCat(TestTempDir(), "/", interrupted);
    for (int run = 0; run < (interrupted ? 2 : 1); ++run) {
      ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {.bf16_masters = true}));
      ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 8, .micro_tokens = 100, .seed = 3}));
      TrainerOptions options = Options(40, folder);
      if (interrupted) options.stop_after = 20;
      ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, options));
      losses[interrupted].clear();
      for (const StepRecord& step : training.steps) losses[interrupted].push_back(step.loss);
      ir::Graph stored = graph;
      ASSERT_OK(learner->Store(stored));  // in bf16, exactly
      TokenBatch batch;
      batch.Append(sequences.tokens(1));
      ASSERT_OK(learner->tape().Forward(batch));
      ASSERT_OK_AND_ASSIGN(auto frozen, WeightLearner::Create(stored, machine_, {}, {}));
      ASSERT_OK(frozen->tape().Forward(batch));
      EXPECT_EQ(learner->tape().hidden(), frozen->tape().hidden());
    }
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_LT(losses[0].back(), 0.7 * losses[0].front());
}

// What training multiplies by is what encoding the master decodes to, for every
// scheme that a format offers.
TEST_F(TrainTest, FakeQuantizationIsEncodeAndDecode) {
  Rng rng(4);
  constexpr int64_t kRows = 70;  // more than a task takes
  for (const std::string& name : FormatNames()) {
    const Format& format = *FindFormat(name).value();
    const int64_t cols = RoundUp(35, format.row_multiple());
    std::vector<float> master(kRows * cols);
    for (float& v : master) v = rng.Normal();
    for (const QuantScheme& scheme : format.ExampleSchemes()) {
      std::vector<float> decoded(master.size());
      std::vector<uint8_t> in_range;
      ASSERT_OK(FakeQuantizeWeights(machine_, scheme, kRows, cols, master.data(), decoded.data(), &in_range));
      ASSERT_OK_AND_ASSIGN(const EncodedTensor encoded, Encode(scheme, {kRows, cols}, master));
      EXPECT_EQ(decoded, Decode(encoded)) << SchemeToString(scheme);
    }
    if (format.row_multiple() == 1) continue;
    std::vector<float> decoded(master.size());
    std::vector<uint8_t> in_range;
    EXPECT_FALSE(FakeQuantizeWeights(machine_, format.ExampleSchemes()[0], 1, cols - 1, master.data(), decoded.data(), &in_range).ok()) << name;
  }
}

TEST_F(TrainTest, AdamWFirstStep) {
  // m = .1 g, v = .05 g^2 (g = 2): corrected 2 and 4; w = 1 - .1 (2 / 2) - .1 * .5 * 1.
  Moments moments;
  std::vector<float> w = {1.0f, -1.0f};
  const std::vector<float> g = {2.0f, 0.0f};
  AdamWUpdate(machine_, {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 0}, 1, 0.1, 0.5, 1.0, absl::MakeConstSpan(g).subspan(0, 1), &moments,
              absl::MakeSpan(w).subspan(0, 1));
  EXPECT_NEAR(w[0], 0.85, 1e-6);
  EXPECT_NEAR(moments.first[0], 0.2, 1e-7);
  EXPECT_NEAR(moments.second[0], 0.2, 1e-7);
}

TEST_F(TrainTest, Schedules) {
  const Schedule cosine = {.peak = 1, .warmup = 4, .steps = 104, .decay = Decay::kCosine, .floor = 0.1};
  EXPECT_DOUBLE_EQ(cosine.Rate(1), 0.25);
  EXPECT_DOUBLE_EQ(cosine.Rate(4), 1);
  EXPECT_DOUBLE_EQ(cosine.Rate(5), 1);
  EXPECT_NEAR(cosine.Rate(55), 0.55, 1e-12);
  EXPECT_NEAR(cosine.Rate(105), 0.1, 1e-12);
  const Schedule linear = {.peak = 1, .warmup = 0, .steps = 10, .decay = Decay::kLinear, .floor = 0};
  EXPECT_DOUBLE_EQ(linear.Rate(1), 1);
  EXPECT_DOUBLE_EQ(linear.Rate(6), 0.5);
  EXPECT_NEAR(linear.Rate(10), 0.1, 1e-12);
  // A single update has the whole rate.
  EXPECT_DOUBLE_EQ((Schedule{.peak = 1.5, .warmup = 0, .steps = 1, .decay = Decay::kCosine, .floor = 0}).Rate(1), 1.5);
}

TEST_F(TrainTest, EachEpochIsAnotherPermutation) {
  for (const int64_t count : {1, 2, 7, 100}) {
    std::vector<int64_t> epochs[2];
    for (int64_t e = 0; e < 2; ++e) {
      for (int64_t i = 0; i < count; ++i) epochs[e].push_back(ShuffledIndex(e * count + i, count, 9));
      EXPECT_EQ(std::set<int64_t>(epochs[e].begin(), epochs[e].end()).size(), count);
      EXPECT_EQ(*std::max_element(epochs[e].begin(), epochs[e].end()), count - 1);
    }
    if (count == 100) EXPECT_NE(epochs[0], epochs[1]);
  }
}

TEST_F(TrainTest, DpoGoldenValues) {
  EXPECT_NEAR(DpoLossOf({0.1, 0}, 0).loss, 0.693147, 1e-6);
  EXPECT_NEAR(DpoLossOf({0.1, 0}, 2).loss, 0.598139, 1e-6);
  EXPECT_NEAR(DpoLossOf({0.5, 0}, 2).loss, 0.313262, 1e-6);
  for (const double z : {-30.0, -1.0, 0.0, 2.5, 400.0}) {
    for (const double smoothing : {0.0, 0.2}) {
      const DpoOptions options = {0.3, smoothing};
      const double numeric = (DpoLossOf(options, z + 1e-5).loss - DpoLossOf(options, z - 1e-5).loss) / 2e-5;
      EXPECT_NEAR(DpoLossOf(options, z).gradient, numeric, 1e-8) << z;
    }
  }
}

class DpoGolden : public GoldenTest {
 protected:
  DpoGolden() : GoldenTest("methods.safetensors") {}
};

// Log-probabilities of an independent implementation: policy chosen and rejected,
// reference chosen and rejected, beta, loss.
TEST_F(DpoGolden, LossOfEveryCase) {
  for (int i = 0; i < 4; ++i) {
    const Tensor golden = Golden(absl::StrCat("dpo.case", i));
    const absl::Span<const double> v = golden.as<double>();
    ASSERT_EQ(v.size(), 6);
    EXPECT_NEAR(DpoLossOf({v[4], 0}, (v[0] - v[1]) - (v[2] - v[3])).loss, v[5], 1e-12) << "case " << i;
  }
}

// At B = 0: dA = 0, and dB = scale dy^T (x A^T) moves alone.
TEST_F(TrainTest, FirstGradientOfAnAdapter) {
  ir::Graph graph = Graph(Config());
  ASSERT_OK(ir::AttachAdapters(graph, {{"model.layers.1.mlp.down_proj", 3, 2.0f}}, [](const std::string& name, const Shape& shape) {
    return [name, shape]() -> absl::StatusOr<EncodedTensor> {
      std::vector<float> values(shape[0] * shape[1], 0.0f);
      for (size_t i = 0; i < values.size() && absl::StrContains(name, "lora_A"); ++i) values[i] = std::sin(static_cast<float>(i));
      return WrapFloats(Tensor::FromFloats(shape, values));
    };
  }));
  std::vector<TrainedParameter> trained;
  for (const char* name : {"model.layers.1.mlp.down_proj.lora_A", "model.layers.1.mlp.down_proj.lora_B", "model.layers.1.mlp.down_proj"}) {
    const ir::ParameterId id = *graph.FindOp(name)->weight;
    trained.push_back({id, graph.parameter(id).LoadFloats().value(), std::nullopt});
  }
  const std::vector<float> a = trained[0].master;
  // Gradients by tape, on arrays of our own.
  ParameterArrays<float> arrays;
  std::vector<std::vector<float>> values, gradients;
  for (const ir::Parameter& parameter : graph.parameters()) {
    values.push_back(parameter.LoadFloats().value());
    gradients.emplace_back(values.back().size());
  }
  for (size_t p = 0; p < values.size(); ++p) {
    arrays.values.push_back(values[p].data());
    arrays.gradients.push_back(nullptr);
  }
  for (const TrainedParameter& parameter : trained) arrays.gradients[parameter.id] = gradients[parameter.id].data();
  ASSERT_OK_AND_ASSIGN(auto tape, Tape<float>::Create(graph, machine_, arrays, {}));
  TokenBatch batch;
  batch.Append({1, 2, 3, 4});
  ASSERT_OK(tape->Forward(batch));
  std::vector<float> hidden_gradient(tape->hidden().size());
  for (size_t i = 0; i < hidden_gradient.size(); ++i) hidden_gradient[i] = std::cos(static_cast<float>(i));
  ASSERT_OK(tape->Backward(hidden_gradient));
  const std::vector<float>&da = gradients[trained[0].id], &db = gradients[trained[1].id], &dw = gradients[trained[2].id];
  EXPECT_EQ(da, std::vector<float>(da.size()));
  // dW = dy^T x, so dB = scale dW A^T.
  for (int64_t r = 0; r < 24; ++r) {
    for (int64_t k = 0; k < 3; ++k) {
      double expected = 0;
      for (int64_t c = 0; c < 40; ++c) expected += 2.0 * dw[r * 40 + c] * a[k * 40 + c];
      EXPECT_NEAR(db[r * 3 + k], expected, 1e-5 * (1 + std::fabs(expected)));
    }
  }
}

TEST_F(TrainTest, LearnsToCount) {
  const ir::Graph graph = Graph(Config());
  ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {}));
  const Sequences sequences = Counting(30, 12);
  ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 8, .micro_tokens = 40, .seed = 1}));
  ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, Options(60)));
  EXPECT_NEAR(training.first_loss(), std::log(29.0), 0.6);
  EXPECT_LT(training.last_loss(), 0.2);
  EXPECT_EQ(training.tokens(), 60 * 8 * 12);
}

// The size of micro-batches changes rounding, not the gradient.
TEST_F(TrainTest, MicroBatchesAddUp) {
  const ir::Graph graph = Graph(Config());
  const Sequences sequences = Counting(30, 12);
  std::vector<double> losses;
  for (const int64_t micro : {12, 1000}) {
    ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {}));
    ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 8, .micro_tokens = micro}));
    ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, Options(5)));
    losses.push_back(training.steps.back().loss);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-4);
}

TEST_F(TrainTest, AKilledTrainingEndsAtTheSameLoss) {
  const Sequences sequences = Counting(30, 12);
  ir::Graph graph = Graph(Config());
  std::vector<StepRecord> whole, parts;
  for (const bool interrupted : {false, true}) {
    const std::string folder = absl::StrCat(TestTempDir(), "/", interrupted);
    for (int run = 0; run < (interrupted ? 3 : 1); ++run) {
      ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, Integers(4, 8, QuantScheme::HALF_RANGE)), {}));
      ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 4, .micro_tokens = 30, .seed = 3}));
      TrainerOptions options = Options(20, folder);
      options.quantize_after = 6;
      if (interrupted) options.stop_after = 8;
      ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, options));
      EXPECT_EQ(training.finished, !interrupted || run == 2);
      (interrupted ? parts : whole) = training.steps;
    }
  }
  ASSERT_EQ(parts.size(), 20);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(parts[i].loss, whole[i].loss) << i;
    EXPECT_NEAR(parts[i].gradient_norm, whole[i].gradient_norm, 1e-8 * whole[i].gradient_norm) << i;
  }
}

// Where quantization begins late, scales are those of the weights by then, whether or not the
// training was killed just before.
TEST_F(TrainTest, LearnedScalesBeginWithQuantizationAndResume) {
  const Sequences sequences = Counting(30, 12);
  const ir::Graph graph = Graph(Config());
  const QuantScheme scheme = Integers(2, 16, QuantScheme::MAX_CODE);
  const ir::ParameterId id = *graph.FindOp("model.layers.0.mlp.up_proj")->weight;
  std::vector<float> ends[2];
  for (const bool interrupted : {false, true}) {
    const std::string folder = absl::StrCat(TestTempDir(), "/", interrupted);
    for (int run = 0; run < (interrupted ? 2 : 1); ++run) {
      std::vector<TrainedParameter> trained = All(graph, scheme);
      for (TrainedParameter& parameter : trained) parameter.learn_scales = CanLearnScales(parameter);
      ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, std::move(trained), {}));
      ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 4, .micro_tokens = 30, .seed = 3}));
      TrainerOptions options = Options(9, folder);
      options.quantize_after = 6;
      if (interrupted && run == 0) options.stop_after = 6;
      ASSERT_OK(Train(*learner, *objective, options));
      ir::Graph stored = graph;
      ASSERT_OK(learner->Store(stored));
      const std::vector<float> values = stored.parameter(id).LoadFloats().value();
      if (interrupted && run == 0) {
        // Not learned yet: the rule's of the weights as they are.
        ASSERT_OK(learner->SaveMasters(folder + "/masters.safetensors"));
        ASSERT_OK_AND_ASSIGN(const auto file, io::SafetensorsFile::Open(folder + "/masters.safetensors"));
        ASSERT_OK_AND_ASSIGN(const Tensor master, file->Get(graph.parameter(id).name()));
        ASSERT_OK_AND_ASSIGN(const EncodedTensor rule, Encode(scheme, graph.parameter(id).shape(), ToFloats(master)));
        EXPECT_THAT(values, ::testing::Pointwise(::testing::FloatNear(1e-4), Decode(rule)));
      } else {
        ends[interrupted] = values;
      }
    }
  }
  EXPECT_EQ(ends[0], ends[1]);
}

TEST_F(TrainTest, ACheckpointOfAnotherTrainingIsRefused) {
  const Sequences sequences = Counting(30, 12);
  const ir::Graph graph = Graph(Config());
  const std::string folder = TestTempDir();
  const auto train = [&](const std::string& identity) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {}));
    NIBBLE_ASSIGN_OR_RETURN(auto objective, LanguageModel::Create(sequences, {.batch = 4}));
    TrainerOptions options = Options(2, folder);
    options.identity = identity;
    return Train(*learner, *objective, options).status();
  };
  ASSERT_OK(train("one"));
  const absl::Status refused = train("two");
  EXPECT_THAT(refused.message(), ::testing::HasSubstr("another training"));
  ASSERT_OK(WriteFile(folder + "/checkpoint.safetensors", "rubbish"));
  EXPECT_FALSE(train("one").ok());
}

// Prepare and convert agree: the logits that training saw are those of the
// stored integer model on the reference executor.
TEST_F(TrainTest, ConvertedModelIsTheFakeQuantizedOne) {
  ir::Graph graph = Graph(Config());
  ASSERT_OK_AND_ASSIGN(const auto blocks, ir::SelectOps(graph, {"blocks", "head"}));
  ASSERT_OK(ir::AttachActivation(graph, blocks, TokenInt8()));
  for (const QuantScheme::Divisor divisor : {QuantScheme::MAX_CODE, QuantScheme::HALF_RANGE}) {
    ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, Integers(3, 16, divisor)), {}));
    const Sequences sequences = Counting(30, 12);
    ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 4, .micro_tokens = 100, .seed = 3}));
    ASSERT_OK(Train(*learner, *objective, Options(10)));
    TokenBatch batch;
    batch.Append(sequences.tokens(2));
    ASSERT_OK(learner->tape().Forward(batch));
    std::vector<int64_t> positions(12);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<float> seen(12 * 29);
    ASSERT_OK(learner->head().Logits(learner->tape().hidden(), positions, seen.data()));
    ir::Graph stored = graph;
    // Float parameters are stored in bf16; keep them whole for this comparison.
    for (size_t id = 0; id < stored.parameters().size(); ++id) {
      ir::Parameter& parameter = stored.mutable_parameter(static_cast<ir::ParameterId>(id));
      ASSERT_OK_AND_ASSIGN(EncodedTensor whole, WrapFloats(Tensor::FromFloats(parameter.shape(), parameter.LoadFloats().value())));
      ASSERT_OK(parameter.Replace(std::move(whole)));
    }
    ASSERT_OK(learner->Store(stored));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> converted, RunReference(stored, sequences.tokens(2)));
    for (size_t i = 0; i < seen.size(); ++i) ASSERT_NEAR(seen[i], converted[i], 2e-3 * (1 + std::fabs(converted[i]))) << i;
  }
}

TEST_F(TrainTest, PreferencesRaiseTheChosen) {
  const ir::Graph graph = Graph(Config());
  Sequences pairs;
  for (int64_t i = 0; i < 16; ++i) {
    const int32_t start = static_cast<int32_t>(i);
    const std::vector<uint8_t> learned = {0, 0, 1, 1};
    pairs.Add({start, 3, 7, 8}, learned);
    pairs.Add({start, 3, 8, 7}, learned);
  }
  ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {}));
  const std::vector<int64_t> seen = Preferences::SequencesSeen(pairs, {.batch = 4}, 20);
  ASSERT_OK_AND_ASSIGN(std::vector<double> references, SumLogProbs(*learner, pairs, seen, 64));
  ASSERT_OK_AND_ASSIGN(auto objective, Preferences::Create(pairs, std::move(references), {.batch = 4}, {.beta = 0.5}));
  ASSERT_OK_AND_ASSIGN(const Training training, Train(*learner, *objective, Options(20)));
  EXPECT_NEAR(training.steps[0].loss, std::log(2.0), 1e-6);  // policy and reference are the same
  EXPECT_EQ(training.steps[0].accuracy, 0);
  EXPECT_LT(training.last_loss(), 0.2);
  EXPECT_EQ(training.steps.back().accuracy, 1);
}

// One update sees few of many pairs; only their references are computed.
TEST_F(TrainTest, ReferencesOfTheSequencesSeen) {
  const ir::Graph graph = Graph(Config());
  Sequences pairs;
  for (int i = 0; i < 40; ++i) {
    pairs.Add({static_cast<int32_t>(i % 20), 3, 7});
    pairs.Add({static_cast<int32_t>(i % 20), 7, 3});
  }
  const std::vector<int64_t> seen = Preferences::SequencesSeen(pairs, {.batch = 4}, 1);
  ASSERT_EQ(seen.size(), 8u);
  ASSERT_OK_AND_ASSIGN(auto learner, WeightLearner::Create(graph, machine_, All(graph, std::nullopt), {}));
  ASSERT_OK_AND_ASSIGN(const std::vector<double> sums, SumLogProbs(*learner, pairs, seen, 64));
  ASSERT_EQ(sums.size(), 80u);
  EXPECT_EQ(std::count_if(sums.begin(), sums.end(), [](double v) { return std::isfinite(v); }), 8);
  std::vector<int64_t> all(80);
  std::iota(all.begin(), all.end(), 0);
  ASSERT_OK_AND_ASSIGN(const std::vector<double> every, SumLogProbs(*learner, pairs, all, 64));
  for (const int64_t i : seen) EXPECT_NEAR(sums[i], every[i], 1e-5);
}

// A student of other weights comes to give what its teacher gives.
TEST_F(TrainTest, Distills) {
  const LlamaConfig config = Config();
  const ir::Graph teacher_graph = Graph(config);
  auto student_graph = BuildLlama(config, SyntheticWeights(config, 2));
  ASSERT_OK(student_graph);
  std::vector<TrainedParameter> sharp = All(teacher_graph, std::nullopt);
  for (TrainedParameter& p : sharp) {
    for (float& v : p.master) v *= teacher_graph.parameter(p.id).shape().size() > 1 ? 6.0f : 1.0f;
  }
  ASSERT_OK_AND_ASSIGN(auto teacher, WeightLearner::Create(teacher_graph, machine_, std::move(sharp), {}));
  const Sequences sequences = Counting(30, 12);
  for (const double hidden_weight : {0.0, 0.5}) {
    ASSERT_OK_AND_ASSIGN(auto student, WeightLearner::Create(*student_graph, machine_, All(*student_graph, std::nullopt), {}));
    ASSERT_OK_AND_ASSIGN(auto objective, LanguageModel::Create(sequences, {.batch = 8}, teacher.get(), {.weight = 1, .hidden_weight = hidden_weight}));
    ASSERT_OK_AND_ASSIGN(const Training training, Train(*student, *objective, Options(80)));
    EXPECT_LT(training.last_loss(), 0.5 * training.first_loss()) << hidden_weight;
  }
}

// Merging an adapter into float weights keeps the function.
TEST_F(TrainTest, MergedAdapterIsTheServedOne) {
  ir::Graph graph = Graph(Config(false));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> before, RunReference(graph, {1, 2, 3}));
  std::vector<ir::Adapter> adapters;
  ASSERT_OK_AND_ASSIGN(const auto blocks, ir::SelectOps(graph, {"blocks"}));
  for (const size_t i : blocks) adapters.push_back({graph.ops()[i].name, 2, 0.5f});
  ASSERT_OK(ir::AttachAdapters(graph, adapters, [](const std::string& name, const Shape& shape) {
    return [name, shape]() -> absl::StatusOr<EncodedTensor> {
      Rng rng(name.size());
      std::vector<float> values(shape[0] * shape[1]);
      for (float& v : values) v = 0.1f * rng.Normal();
      return WrapFloats(Tensor::FromFloats(shape, values));
    };
  }));
  EXPECT_EQ(ir::AdaptersOf(graph).size(), 14);
  EXPECT_FALSE(ir::AttachAdapters(graph, {adapters[0]}, nullptr).ok());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> served, RunReference(graph, {1, 2, 3}));
  for (size_t id = 0; id < graph.parameters().size(); ++id) {
    ir::Parameter& parameter = graph.mutable_parameter(static_cast<ir::ParameterId>(id));
    ASSERT_OK_AND_ASSIGN(EncodedTensor whole, WrapFloats(Tensor::FromFloats(parameter.shape(), parameter.LoadFloats().value())));
    ASSERT_OK(parameter.Replace(std::move(whole)));
  }
  ASSERT_OK(ir::MergeAdapters(graph, pool_));
  EXPECT_TRUE(ir::AdaptersOf(graph).empty());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> merged, RunReference(graph, {1, 2, 3}));
  double moved = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    EXPECT_NEAR(merged[i], served[i], 1e-5);
    moved = std::max(moved, std::fabs(static_cast<double>(served[i]) - before[i]));
  }
  EXPECT_GT(moved, 1e-2);
}

}  // namespace
}  // namespace nibble::train
