// Backward against central differences of forward, in double, for each op and
// for whole models; the float path against the double one.
#include <cmath>
#include <functional>
#include <numeric>

#include "absl/strings/match.h"
#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/ir/rotations.h"
#include "core/models/llama.h"
#include "core/runtime/reference.h"
#include "core/train/head.h"
#include "core/train/tape.h"

namespace nibble::train {
namespace {

using Array = std::vector<double>;

Array Random(int64_t n, uint64_t seed, double scale = 1) {
  Rng rng(seed);
  Array values(n);
  for (double& v : values) v = scale * rng.Normal();
  return values;
}

double Dot(const Array& a, const Array& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// d loss / d x[i] by central differences against `gradient`.
void ExpectGradient(Array& x, const Array& gradient, const std::function<double()>& loss, const std::string& what) {
  const double h = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + h;
    const double above = loss();
    x[i] = at - h;
    const double below = loss();
    x[i] = at;
    const double numeric = (above - below) / (2 * h);
    ASSERT_NEAR(gradient[i], numeric, 1e-7 * (1 + std::fabs(numeric))) << what << " element " << i;
  }
}

class OpGradients : public ::testing::Test {
 protected:
  ThreadPool pool_{1};
  const Machine machine_{pool_, *kernels::AvailableTables().back()};
};

TEST_F(OpGradients, Multiply) {
  const int64_t m = 5, n = 7, k = 3;
  Array a = Random(m * k, 1), b = Random(k * n, 2), c(m * n);
  const Array weight = Random(m * n, 3);
  const auto loss = [&] {
    Multiply(machine_, {false, false, m, n, k}, a.data(), b.data(), false, c.data());
    return Dot(c, weight);
  };
  Array da(a.size()), db(b.size());
  Multiply(machine_, {false, true, m, k, n}, weight.data(), b.data(), false, da.data());
  Multiply(machine_, {true, false, k, n, m}, a.data(), weight.data(), false, db.data());
  ExpectGradient(a, da, loss, "a");
  ExpectGradient(b, db, loss, "b");
}

// The float product over every order of its operands, odd sizes and sizes
// beyond a panel and a pass.
TEST_F(OpGradients, FloatProducts) {
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {13, 33, 300}, {40, 530, 7}, {600, 17, 65}}) {
    for (const int order : {0, 1, 2, 3}) {
      const Product product = {(order & 1) != 0, (order & 2) != 0, m, n, k};
      const Array a = Random(m * k, 1), b = Random(k * n, 2);
      Array expected = Random(m * n, 3);
      const std::vector<float> fa(a.begin(), a.end()), fb(b.begin(), b.end());
      std::vector<float> c(expected.begin(), expected.end());
      for (const bool accumulate : {true, false}) {
        Multiply(machine_, product, a.data(), b.data(), accumulate, expected.data());
        Multiply(machine_, product, fa.data(), fb.data(), accumulate, c.data());
        for (size_t i = 0; i < c.size(); ++i) ASSERT_NEAR(c[i], expected[i], 1e-4) << m << " " << n << " " << k << " " << order << " " << i;
      }
    }
  }
}

TEST_F(OpGradients, RmsNorm) {
  const int64_t tokens = 3, width = 11;
  const float eps = 1e-2f;
  Array x = Random(tokens * width, 1), gain = Random(width, 2), y(x.size()), dx(x.size()), dgain(width);
  const Array weight = Random(x.size(), 3);
  const auto loss = [&] {
    RmsNorm(machine_, tokens, width, x.data(), gain.data(), eps, y.data());
    return Dot(y, weight);
  };
  RmsNormBackward(machine_, tokens, width, x.data(), gain.data(), eps, weight.data(), dx.data(), dgain.data());
  ExpectGradient(x, dx, loss, "x");
  ExpectGradient(gain, dgain, loss, "gain");
}

TEST_F(OpGradients, SiluMul) {
  const int64_t n = 19;
  Array gate = Random(n, 1, 3), up = Random(n, 2), y(n), dgate(n), dup(n);
  gate[0] = 0;
  const Array weight = Random(n, 3);
  const auto loss = [&] {
    SiluMul(machine_, n, gate.data(), up.data(), y.data());
    return Dot(y, weight);
  };
  SiluMulBackward(machine_, n, gate.data(), up.data(), weight.data(), dgate.data(), dup.data());
  ExpectGradient(gate, dgate, loss, "gate");
  ExpectGradient(up, dup, loss, "up");
}

TEST_F(OpGradients, Rope) {
  const std::vector<int64_t> starts = {0, 3, 8};
  const Array frequencies = {1.0, 0.3, 0.01};
  RopeAngles<double> angles;
  angles.Extend(frequencies, LongestSequence(starts));
  const RopeShape<double> shape = {2, 6, &angles};
  Array x = Random(8 * 12, 1), y(x.size()), dx(x.size());
  const Array weight = Random(x.size(), 2);
  const auto loss = [&] {
    Rope(machine_, shape, starts, false, x.data(), y.data());
    return Dot(y, weight);
  };
  Rope(machine_, shape, starts, true, weight.data(), dx.data());
  ExpectGradient(x, dx, loss, "x");
}

TEST_F(OpGradients, Embed) {
  const std::vector<int32_t> tokens = {2, 0, 2, 4};
  Array table = Random(5 * 3, 1), y(12), dtable(table.size());
  const Array weight = Random(12, 2);
  const auto loss = [&] {
    Embed(machine_, absl::MakeConstSpan(tokens), 3, table.data(), y.data());
    return Dot(y, weight);
  };
  EmbedBackward(machine_, absl::MakeConstSpan(tokens), 3, weight.data(), dtable.data());
  ExpectGradient(table, dtable, loss, "table");
}

void ExpectAttentionGradients(Machine machine, const AttentionShape& shape, const std::vector<int64_t>& starts) {
  const int64_t tokens = starts.back(), d = shape.head_dim;
  Array q = Random(tokens * shape.heads * d, 1), k = Random(tokens * shape.kv_heads * d, 2), v = Random(k.size(), 3);
  Array out(q.size()), sums(shape.heads * tokens), dq(q.size()), dk(k.size()), dv(v.size());
  const Array weight = Random(out.size(), 4);
  const auto loss = [&] {
    Attention(machine, shape, starts, q.data(), k.data(), v.data(), out.data(), sums.data());
    return Dot(out, weight);
  };
  loss();
  AttentionBackward(machine, shape, starts, q.data(), k.data(), v.data(), out.data(), sums.data(), weight.data(), dq.data(), dk.data(), dv.data());
  ExpectGradient(q, dq, loss, "q");
  ExpectGradient(k, dk, loss, "k");
  ExpectGradient(v, dv, loss, "v");
}

// Two sequences, grouped heads, and a window.
TEST_F(OpGradients, Attention) {
  for (const std::optional<int64_t> window : {std::optional<int64_t>(), std::optional<int64_t>(3)}) {
    ExpectAttentionGradients(machine_, {4, 2, 3, window}, {0, 2, 9});
  }
}

// Blocks of queries meet at 128: one gradient of a long sequence.
TEST_F(OpGradients, AttentionOverBlocks) { ExpectAttentionGradients(machine_, {1, 1, 2, std::nullopt}, {0, 150}); }

TEST_F(OpGradients, Distillation) {
  const int64_t vocab = 6;
  const Array teacher = Random(vocab, 1, 2);
  Array student = Random(vocab, 2, 2);
  const auto loss = [&] {
    Array t = teacher, s = student;
    return DistillRow(machine_.table, vocab, 1.7, 0.6, t.data(), s.data());
  };
  Array t = teacher, gradient = student;
  DistillRow(machine_.table, vocab, 1.7, 0.6, t.data(), gradient.data());
  ExpectGradient(student, gradient, loss, "student");
}

// KL(p || q) of p = [.5 .25 .25], q = [.4 .4 .2] is 0.0498568.
TEST_F(OpGradients, DistillationGolden) {
  Array teacher = {std::log(0.5), std::log(0.25), std::log(0.25)}, student = {std::log(0.4), std::log(0.4), std::log(0.2)};
  EXPECT_NEAR(DistillRow(machine_.table, 3, 1.0, 1.0, teacher.data(), student.data()), 0.0498568, 1e-7);
  EXPECT_NEAR(student[0], -0.1, 1e-12);
  EXPECT_NEAR(student[1], 0.15, 1e-12);
  EXPECT_NEAR(student[2], -0.05, 1e-12);
}

// A two-layer model with grouped heads, and its parameters as arrays.
template <typename T>
struct Model {
  ir::Graph graph;
  std::vector<std::vector<T>> values, gradients;

  ParameterArrays<T> Arrays() {
    ParameterArrays<T> arrays;
    for (auto& v : values) arrays.values.push_back(v.data());
    for (auto& g : gradients) arrays.gradients.push_back(g.data());
    return arrays;
  }
};

LlamaConfig SmallConfig(bool tied, std::optional<int64_t> window) {
  LlamaConfig config;
  config.hidden_size = 12;
  config.intermediate_size = 12;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.vocab_size = 17;
  config.max_position_embeddings = 64;
  config.tie_word_embeddings = tied;
  config.sliding_window = window;
  return config;
}

template <typename T>
absl::StatusOr<Model<T>> MakeModel(const LlamaConfig& config, bool rotated = false) {
  Model<T> model;
  NIBBLE_ASSIGN_OR_RETURN(model.graph, BuildLlama(config, SyntheticWeights(config, 3)));
  if (rotated) {
    NIBBLE_RETURN_IF_ERROR(ir::RotateQueriesAndKeys(model.graph));
    NIBBLE_RETURN_IF_ERROR(ir::AttachOnlineRotations(model.graph, {{"model.layers.0.mlp.down_proj", 12}, {"model.layers.1.self_attn.q_proj", 4}}));
  }
  for (const ir::Parameter& parameter : model.graph.parameters()) {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<float> floats, parameter.LoadFloats());
    std::vector<T> values(floats.begin(), floats.end());
    // Large enough that the softmaxes are far from uniform.
    if (parameter.shape().size() == 2) for (T& v : values) v *= 15;
    model.gradients.emplace_back(values.size());
    model.values.push_back(std::move(values));
  }
  return model;
}

TokenBatch TwoSequences() {
  TokenBatch batch;
  batch.Append({3, 1, 16, 0, 5});
  batch.Append({2, 2, 9});
  return batch;
}

template <typename T>
absl::StatusOr<double> LossAndGradients(const ir::Graph& graph, Machine machine, const ParameterArrays<T>& arrays, const TapeOptions& options,
                                        bool backward) {
  NIBBLE_ASSIGN_OR_RETURN(auto tape, Tape<T>::Create(graph, machine, arrays, options));
  Head<T> head(graph, machine, arrays);
  NIBBLE_RETURN_IF_ERROR(tape->Forward(TwoSequences()));
  const std::vector<int64_t> positions = {0, 1, 2, 3, 5, 6};
  const std::vector<int32_t> targets = {1, 16, 0, 5, 2, 9};
  const std::vector<double> weights = {0.2, 0.1, 0.3, 0.1, 0.2, 0.1};
  std::vector<T> gradient(tape->hidden().size());
  NIBBLE_ASSIGN_OR_RETURN(const double loss, head.CrossEntropy(tape->hidden(), positions, targets, weights, gradient.data()));
  if (backward) NIBBLE_RETURN_IF_ERROR(tape->Backward(gradient));
  return loss;
}

struct ModelCase {
  bool tied;
  std::optional<int64_t> window;
  bool recompute;
  bool rotated;
};

class ModelGradients : public ::testing::TestWithParam<ModelCase> {
 protected:
  ThreadPool pool_{1};
  const Machine machine_{pool_, *kernels::AvailableTables().back()};
};

TEST_P(ModelGradients, MatchCentralDifferences) {
  ASSERT_OK_AND_ASSIGN(Model<double> model, MakeModel<double>(SmallConfig(GetParam().tied, GetParam().window), GetParam().rotated));
  const TapeOptions options = {GetParam().recompute, false};
  const ParameterArrays<double> arrays = model.Arrays();
  ASSERT_OK(LossAndGradients(model.graph, machine_, arrays, options, true));
  const auto gradients = model.gradients;
  for (size_t p = 0; p < model.values.size(); ++p) {
    ExpectGradient(model.values[p], gradients[p],
                   [&] { return LossAndGradients(model.graph, machine_, arrays, options, false).value(); },
                   model.graph.parameter(p).name());
  }
}

TEST_P(ModelGradients, FloatAgreesWithDouble) {
  const LlamaConfig config = SmallConfig(GetParam().tied, GetParam().window);
  ASSERT_OK_AND_ASSIGN(Model<double> exact, MakeModel<double>(config, GetParam().rotated));
  ASSERT_OK_AND_ASSIGN(Model<float> fast, MakeModel<float>(config, GetParam().rotated));
  ASSERT_OK_AND_ASSIGN(const double exact_loss, LossAndGradients(exact.graph, machine_, exact.Arrays(), {false, false}, true));
  ASSERT_OK_AND_ASSIGN(const double fast_loss, LossAndGradients(fast.graph, machine_, fast.Arrays(), {GetParam().recompute, false}, true));
  EXPECT_NEAR(fast_loss, exact_loss, 1e-5);
  for (size_t p = 0; p < exact.gradients.size(); ++p) {
    double largest = 0;
    for (const double g : exact.gradients[p]) largest = std::max(largest, std::fabs(g));
    for (size_t i = 0; i < exact.gradients[p].size(); ++i) {
      ASSERT_NEAR(fast.gradients[p][i], exact.gradients[p][i], 2e-5 * largest + 1e-7) << exact.graph.parameter(p).name() << " " << i;
    }
  }
}

// Recomputation and the number of threads change no bit.
TEST_P(ModelGradients, AreTheSameBitsHoweverTheyAreMade) {
  const LlamaConfig config = SmallConfig(GetParam().tied, GetParam().window);
  ASSERT_OK_AND_ASSIGN(Model<float> a, MakeModel<float>(config, GetParam().rotated));
  ASSERT_OK_AND_ASSIGN(Model<float> b, MakeModel<float>(config, GetParam().rotated));
  ThreadPool two(2);
  ASSERT_OK_AND_ASSIGN(const double loss_a, LossAndGradients(a.graph, machine_, a.Arrays(), {false, false}, true));
  ASSERT_OK_AND_ASSIGN(const double loss_b, LossAndGradients(b.graph, {two, machine_.table}, b.Arrays(), {true, false}, true));
  EXPECT_EQ(loss_a, loss_b);
  EXPECT_EQ(a.gradients, b.gradients);
}

TEST_P(ModelGradients, ForwardIsTheReferenceExecutor) {
  const LlamaConfig config = SmallConfig(GetParam().tied, GetParam().window);
  ASSERT_OK_AND_ASSIGN(Model<float> model, MakeModel<float>(config, GetParam().rotated));
  for (size_t p = 0; p < model.values.size(); ++p) {
    ir::Parameter& parameter = model.graph.mutable_parameter(p);
    ASSERT_OK_AND_ASSIGN(EncodedTensor value, WrapFloats(Tensor::FromFloats(parameter.shape(), model.values[p])));
    ASSERT_OK(parameter.Replace(std::move(value)));
  }
  const ParameterArrays<float> arrays = model.Arrays();
  ASSERT_OK_AND_ASSIGN(auto tape, Tape<float>::Create(model.graph, machine_, arrays, {GetParam().recompute, false}));
  const TokenBatch batch = TwoSequences();
  ASSERT_OK(tape->Forward(batch));
  std::vector<int64_t> positions(batch.size());
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<float> logits(batch.size() * config.vocab_size);
  ASSERT_OK(Head<float>(model.graph, machine_, arrays).Logits(tape->hidden(), positions, logits.data()));
  const auto tokens = absl::MakeConstSpan(batch.tokens);
  ASSERT_OK_AND_ASSIGN(std::vector<float> expected, RunReference(model.graph, tokens.subspan(0, 5)));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> second, RunReference(model.graph, tokens.subspan(5)));
  expected.insert(expected.end(), second.begin(), second.end());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-4) << i;
}

// A cache in 4 bits: its rounding is in the forward pass, and its gradients go straight through.
TEST_P(ModelGradients, KeysAndValuesPassThroughTheirScheme) {
  const LlamaConfig config = SmallConfig(GetParam().tied, GetParam().window);
  std::vector<std::vector<float>> gradients[2];
  for (const bool recompute : {false, true}) {
    ASSERT_OK_AND_ASSIGN(Model<float> model, MakeModel<float>(config, GetParam().rotated));
    for (ir::Op& op : model.graph.mutable_ops()) {
      if (op.kind == ir::OpKind::kAttention) op.keys = op.values = ir::IntegerCacheScheme(4, true, op.head_dim);
    }
    ThreadPool pool(recompute ? 3 : 1);
    const ParameterArrays<float> arrays = model.Arrays();
    ASSERT_OK_AND_ASSIGN(const double quantized, LossAndGradients(model.graph, {pool, machine_.table}, arrays, {recompute, true}, true));
    ASSERT_OK_AND_ASSIGN(const double plain, LossAndGradients(model.graph, {pool, machine_.table}, arrays, {recompute, false}, false));
    EXPECT_NE(quantized, plain);
    gradients[recompute] = model.gradients;
    const auto& keys = model.gradients[*model.graph.FindOp("model.layers.0.self_attn.k_proj")->weight];
    EXPECT_TRUE(std::any_of(keys.begin(), keys.end(), [](float g) { return g != 0; }));

    for (size_t p = 0; p < model.values.size(); ++p) {
      ir::Parameter& parameter = model.graph.mutable_parameter(p);
      ASSERT_OK_AND_ASSIGN(EncodedTensor value, WrapFloats(Tensor::FromFloats(parameter.shape(), model.values[p])));
      ASSERT_OK(parameter.Replace(std::move(value)));
    }
    TokenBatch batch;
    batch.Append({3, 1, 16, 0, 5});
    ASSERT_OK_AND_ASSIGN(auto tape, Tape<float>::Create(model.graph, machine_, arrays, {recompute, true}));
    ASSERT_OK(tape->Forward(batch));
    std::vector<float> logits(batch.size() * config.vocab_size);
    ASSERT_OK(Head<float>(model.graph, machine_, arrays).Logits(tape->hidden(), {0, 1, 2, 3, 4}, logits.data()));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> expected, RunReference(model.graph, batch.tokens));
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-4) << i;
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelGradients,
                         ::testing::Values(ModelCase{true, std::nullopt, false, false}, ModelCase{false, std::nullopt, true, false},
                                           ModelCase{true, 2, true, false}, ModelCase{false, std::nullopt, false, true},
                                           ModelCase{true, std::nullopt, true, true}),
                         [](const auto& info) { return absl::StrCat("Case", info.index); });

// What is frozen is left alone, and gradients of the rest stay the same.
TEST_F(OpGradients, FrozenParameters) {
  ASSERT_OK_AND_ASSIGN(Model<float> all, MakeModel<float>(SmallConfig(false, std::nullopt)));
  ASSERT_OK_AND_ASSIGN(Model<float> some, MakeModel<float>(SmallConfig(false, std::nullopt)));
  ASSERT_OK(LossAndGradients(all.graph, machine_, all.Arrays(), {false, false}, true));
  ParameterArrays<float> arrays = some.Arrays();
  for (size_t p = 0; p < some.values.size(); ++p) {
    if (!absl::EndsWith(some.graph.parameter(p).name(), "q_proj.weight")) arrays.gradients[p] = nullptr;
  }
  ASSERT_OK(LossAndGradients(some.graph, machine_, arrays, {false, false}, true));
  for (size_t p = 0; p < some.values.size(); ++p) {
    if (arrays.gradients[p] == nullptr) EXPECT_EQ(some.gradients[p], std::vector<float>(some.gradients[p].size()));
    else EXPECT_EQ(some.gradients[p], all.gradients[p]);
  }
}

}  // namespace
}  // namespace nibble::train
