// The two executors agree: the Plan against the reference over model shapes
// and schemes, cached decode against the full forward, any thread count and
// any batching against one stream on one thread.

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/ir/passes.h"
#include "core/models/llama.h"
#include "core/quant/format.h"
#include "core/quant/integer_grid.h"
#include "core/runtime/plan.h"
#include "core/runtime/reference.h"
#include "core/runtime/session.h"

namespace nibble {
namespace {

LlamaConfig Shape(int64_t hidden, int64_t ffn, int64_t heads, int64_t kv_heads, int64_t head_dim, bool tied) {
  LlamaConfig config = *ShapePreset("tiny");
  config.hidden_size = hidden;
  config.intermediate_size = ffn;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  config.tie_word_embeddings = tied;
  return config;
}

std::vector<LlamaConfig> Shapes() {
  std::vector<LlamaConfig> shapes = {Shape(48, 100, 4, 2, 12, true), Shape(37, 53, 3, 3, 10, false), Shape(64, 172, 8, 4, 8, true),
                                     Shape(96, 33, 4, 1, 24, false)};
  shapes[3].sliding_window = 7;
  shapes[2].rope_scaling = Llama3RopeScaling{8, 1, 4, 16};
  shapes[1].rope_linear_factor = 2;
  return shapes;
}

ir::Graph Build(const LlamaConfig& config) {
  auto graph = BuildLlama(config, SyntheticWeights(config, 7));
  EXPECT_OK(graph);
  // Larger weights than the synthetic 0.02, so that attention is not uniform.
  for (size_t i = 0; i < graph->parameters().size(); ++i) {
    ir::Parameter& parameter = graph->mutable_parameter(static_cast<ir::ParameterId>(i));
    if (parameter.shape().size() != 2) continue;
    std::vector<float> values = *parameter.LoadFloats();
    for (float& v : values) v *= 8;
    EXPECT_OK(parameter.Replace(*Encode(FloatScheme("bf16"), parameter.shape(), values)));
  }
  return *std::move(graph);
}

struct SchemePair {
  const char* name;
  QuantScheme weight;
  std::optional<QuantScheme> activation;
  bool native;
};

QuantScheme Weights(int bits, int group, bool asymmetric = false) { return IntegerScheme(bits, group, asymmetric); }

QuantScheme Activations(int bits, bool asymmetric) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  scheme.set_per(QuantScheme::PER_TOKEN);
  scheme.set_asymmetric(asymmetric);
  scheme.set_dynamic(true);
  return scheme;
}

QuantScheme GroupActivations() {
  QuantScheme scheme = Activations(8, true);
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(16);
  return scheme;
}

std::vector<SchemePair> SchemePairs() {
  return {{"fp32", FloatScheme("fp32"), {}, true},
          {"bf16", FloatScheme("bf16"), {}, true},
          {"fp16", FloatScheme("fp16"), {}, true},
          {"bf16_abf16", FloatScheme("bf16"), FloatScheme("bf16"), true},
          {"w8", Weights(8, 0), {}, true},
          {"w4g32", Weights(4, 32), {}, true},
          {"w4g32_asym", Weights(4, 32, true), {}, true},
          {"w3g16", Weights(3, 16), {}, true},
          {"w2g32_asym", Weights(2, 32, true), {}, true},
          {"w8a8", Weights(8, 0), Activations(8, false), true},
          {"w4a8", Weights(4, 32), Activations(8, true), true},
          {"w4a8_g7", Weights(4, 7), Activations(8, true), true},
          {"w5a6", Weights(5, 0, true), Activations(6, true), true},
          {"w4a4", Weights(4, 0), Activations(4, false), true},
          {"w4a8_grouped", Weights(4, 32), GroupActivations(), false}};
}

void Quantize(ir::Graph& graph, const SchemePair& pair) {
  ASSERT_OK_AND_ASSIGN(const std::vector<size_t> ops, ir::SelectOps(graph, {"blocks"}));
  for (const size_t i : ops) {
    ir::Parameter& parameter = graph.mutable_parameter(*graph.ops()[i].weight);
    const std::vector<float> values = *parameter.LoadFloats();
    ASSERT_OK(parameter.Replace(*Encode(pair.weight, parameter.shape(), values)));
  }
  if (pair.activation.has_value()) ASSERT_OK(ir::AttachActivation(graph, ops, *pair.activation));
}

std::vector<int32_t> Tokens(int64_t n, int64_t vocab, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& t : tokens) t = static_cast<int32_t>(rng.Below(vocab));
  return tokens;
}

std::vector<float> PlanLogits(const Plan& plan, absl::Span<const int32_t> tokens, int threads) {
  ThreadPool pool(threads);
  auto session = Session::Create(plan, pool, {1, static_cast<int64_t>(tokens.size())});
  EXPECT_OK(session);
  std::vector<float> hidden, logits(tokens.size() * plan.vocab_size());
  EXPECT_OK((*session)->Forward({{0, tokens}}, &hidden));
  EXPECT_OK((*session)->Logits(hidden.data(), static_cast<int64_t>(tokens.size()), logits.data()));
  return logits;
}

double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

const kernels::KernelTable& Table() { return **kernels::ChooseTable(); }

double StepBound(const QuantScheme& activation) {
  const auto format = FindFormat(activation.format());
  const int bits = (*format)->integer_bits().value_or(8);
  return 2e-2 * std::pow(2.0, 8 - bits);
}

// Each linear of the model on the inputs that the reference gave it.
void ExpectLinearsAgree(const ir::Graph& graph, absl::Span<const int32_t> tokens, const kernels::KernelTable& table, const char* name) {
  std::vector<std::vector<float>> values(graph.values().size());
  ASSERT_OK(RunReference(graph, tokens, [&](const ir::Op& op, absl::Span<const float> y) { values[op.output].assign(y.begin(), y.end()); }));
  ThreadPool pool(2);
  for (const ir::Op& op : graph.ops()) {
    if (!op.is_linear()) continue;
    ASSERT_OK_AND_ASSIGN(const EncodedTensor weight, graph.parameter(*op.weight).Load());
    ASSERT_OK_AND_ASSIGN(const auto linear, kernels::Linear::Create(weight, op.activation, table));
    kernels::PreparedInput input;
    ASSERT_OK(input.Prepare(linear->input_form(), table, values[op.inputs[0]].data(), static_cast<int64_t>(tokens.size()), pool));
    std::vector<float> y(tokens.size() * linear->rows());
    ASSERT_OK(linear->Multiply(input, y.data(), linear->rows(), pool));
    EXPECT_LT(RelativeError(y, values[op.output]), 3e-6) << name << " " << op.name << " on " << table.name;
  }
}

TEST(Executors, LinearsAgreeOnTheSameInputs) {
  for (const LlamaConfig& config : Shapes()) {
    for (const SchemePair& pair : SchemePairs()) {
      ir::Graph graph = Build(config);
      Quantize(graph, pair);
      for (const int64_t count : {1, 3, 11}) {
        const std::vector<int32_t> tokens = Tokens(count, config.vocab_size, 1);
        for (const kernels::KernelTable* table : kernels::AvailableTables()) ExpectLinearsAgree(graph, tokens, *table, pair.name);
      }
    }
  }
}

TEST(Executors, AgreeOnEverySchemeAndShape) {
  for (const LlamaConfig& config : Shapes()) {
    const std::vector<int32_t> tokens = Tokens(23, config.vocab_size, 1);
    for (const SchemePair& pair : SchemePairs()) {
      ir::Graph graph = Build(config);
      Quantize(graph, pair);
      ASSERT_OK_AND_ASSIGN(const std::vector<float> expected, RunReference(graph, tokens));
      for (const kernels::KernelTable* table : kernels::AvailableTables()) {
        ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, *table));
        EXPECT_EQ(plan->arithmetic() == kernels::Arithmetic::kNative, pair.native) << pair.name;
        // A last-bit difference in an activation can move it by a whole step
        // of its quantizer, and later layers see that: the bound grows with
        // the step. LinearsAgreeOnTheSameInputs is the sharp test.
        const double bound = pair.activation.has_value() ? StepBound(*pair.activation) : 2e-5;
        EXPECT_LT(RelativeError(PlanLogits(*plan, tokens, 1), expected), bound)
            << pair.name << " on " << table->name << ", hidden " << config.hidden_size;
      }
    }
  }
}

TEST(Executors, CachedDecodeEqualsTheFullForward) {
  for (const LlamaConfig& config : Shapes()) {
    for (const char* name : {"bf16", "w4a8", "w4g32"}) {
      ir::Graph graph = Build(config);
      for (const SchemePair& pair : SchemePairs()) {
        if (pair.name == std::string(name)) Quantize(graph, pair);
      }
      ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
      const std::vector<int32_t> tokens = Tokens(19, config.vocab_size, 2);
      const std::vector<float> full = PlanLogits(*plan, tokens, 2);
      ThreadPool pool(2);
      ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {1, 19}));
      std::vector<float> hidden, logits(config.vocab_size), stepwise;
      for (size_t t = 0; t < tokens.size(); ++t) {
        ASSERT_OK(session->Forward({{0, absl::MakeConstSpan(tokens).subspan(t, 1)}}, &hidden));
        ASSERT_OK(session->Logits(hidden.data(), 1, logits.data()));
        stepwise.insert(stepwise.end(), logits.begin(), logits.end());
      }
      EXPECT_LT(RelativeError(stepwise, full), name == std::string("w4a8") ? 2e-2 : 2e-5) << name;
    }
  }
}

TEST(Executors, ThreadsDoNotChangeABit) {
  const LlamaConfig config = Shapes()[2];
  for (const SchemePair& pair : SchemePairs()) {
    ir::Graph graph = Build(config);
    Quantize(graph, pair);
    ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
    const std::vector<int32_t> tokens = Tokens(70, config.vocab_size, 3);
    const std::vector<float> one = PlanLogits(*plan, tokens, 1);
    EXPECT_EQ(one, PlanLogits(*plan, tokens, 2)) << pair.name;
    EXPECT_EQ(one, PlanLogits(*plan, tokens, 3)) << pair.name;
  }
}

TEST(Session, StreamsDoNotSeeEachOtherAndRewindForgets) {
  const LlamaConfig config = Shapes()[0];
  const ir::Graph graph = Build(config);
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
  ThreadPool pool(2);
  const std::vector<int32_t> a = Tokens(12, config.vocab_size, 4), b = Tokens(9, config.vocab_size, 5);
  std::vector<float> alone_a, alone_b, both, again;
  ASSERT_OK_AND_ASSIGN(const auto single, Session::Create(*plan, pool, {1, 16}));
  ASSERT_OK(single->Forward({{0, a}}, &alone_a));
  single->Rewind(0, 0);
  ASSERT_OK(single->Forward({{0, b}}, &alone_b));
  ASSERT_OK_AND_ASSIGN(const auto batch, Session::Create(*plan, pool, {2, 16}));
  ASSERT_OK(batch->Forward({{0, a}, {1, b}}, &both));
  std::vector<float> expected = alone_a;
  expected.insert(expected.end(), alone_b.begin(), alone_b.end());
  EXPECT_LT(RelativeError(both, expected), 1e-5);
  batch->Rewind(1, 4);
  ASSERT_OK(batch->Forward({{1, absl::MakeConstSpan(b).subspan(4)}}, &again));
  EXPECT_LT(RelativeError(again, {alone_b.begin() + 4 * config.hidden_size, alone_b.end()}), 1e-5);
}

TEST(Session, LongInputsRunInChunks) {
  const LlamaConfig config = Shapes()[0];
  const ir::Graph graph = Build(config);
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
  const std::vector<int32_t> tokens = Tokens(Session::kMostChunkTokens + 37, config.vocab_size, 6);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> expected, RunReference(graph, tokens));
  EXPECT_LT(RelativeError(PlanLogits(*plan, tokens, 2), expected), 2e-5);
}

// On every kind of linear, with streams that want nothing, something and all, over chunks.
TEST(Session, WantedStatesAreThoseOfAll) {
  const LlamaConfig config = Shapes()[0];
  for (const SchemePair& pair : SchemePairs()) {
    const bool rounds = pair.activation.has_value();  // a number that differs in its last place may round another way
    if (rounds ? pair.name != std::string("w4a8") && pair.name != std::string("bf16_abf16") : pair.name != std::string("fp32")) continue;
    const double bound = rounds ? 2e-2 : 1e-5;
    ir::Graph graph = Build(config);
    Quantize(graph, pair);
    ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
    ThreadPool pool(2);
    const std::vector<int32_t> a = Tokens(Session::kMostChunkTokens + 9, config.vocab_size, 4), b = Tokens(40, config.vocab_size, 5);
    const int64_t width = config.hidden_size, in_a = static_cast<int64_t>(a.size()), in_b = static_cast<int64_t>(b.size());
    ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {2, in_a}));
    const auto run = [&](std::optional<int64_t> of_a, std::optional<int64_t> of_b) {
      session->Rewind(0, 0);
      session->Rewind(1, 0);
      std::vector<float> hidden;
      EXPECT_OK(session->Forward({{0, a, of_a}, {1, b, of_b}}, &hidden));
      return hidden;
    };
    const std::vector<float> all = run({}, {});
    const std::pair<int64_t, int64_t> counts[] = {{1, 1}, {12, 0}, {0, 40}, {in_a, 3}, {100, 40}};
    for (const auto& [of_a, of_b] : counts) {
      std::vector<float> expected(all.begin() + (in_a - of_a) * width, all.begin() + in_a * width);
      expected.insert(expected.end(), all.end() - of_b * width, all.end());
      const std::vector<float> found = run(of_a, of_b);
      ASSERT_EQ(found.size(), expected.size());
      EXPECT_LT(RelativeError(found, expected), bound) << pair.name << " " << of_a << " " << of_b;
    }
    EXPECT_EQ(run(0, 0).size(), 0u);
    // What was not wanted is in the cache all the same.
    std::vector<float> next, after;
    const std::vector<int32_t> one = {1};
    session->Rewind(0, in_a - 1);
    ASSERT_OK(session->Forward({{0, one}}, &next));
    run({}, {});
    session->Rewind(0, in_a - 1);
    ASSERT_OK(session->Forward({{0, one}}, &after));
    EXPECT_LT(RelativeError(next, after), bound);
    EXPECT_EQ(static_cast<int64_t>(all.size()), (in_a + in_b) * width);
  }
}

TEST(Session, MistakesAreErrors) {
  const LlamaConfig config = Shapes()[0];
  const ir::Graph graph = Build(config);
  ASSERT_OK_AND_ASSIGN(const auto plan, Plan::Create(graph, Table()));
  ThreadPool pool(1);
  ASSERT_OK_AND_ASSIGN(const auto session, Session::Create(*plan, pool, {1, 4}));
  const std::vector<int32_t> outside = {static_cast<int32_t>(config.vocab_size)}, negative = {-1}, long_one = {1, 2, 3, 4, 5};
  EXPECT_EQ(session->Forward({{0, outside}}, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(session->Forward({{0, negative}}, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(session->Forward({{0, long_one}}, nullptr).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(session->position(0), 0);
  const auto huge = Session::Create(*plan, pool, {1, int64_t{1} << 50});
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(huge.status().message()), ::testing::HasSubstr("fewer positions"));
}

TEST(Passes, FoldingNormsKeepsTheLogits) {
  for (const LlamaConfig& config : Shapes()) {
    ir::Graph graph = Build(config);
    Rng rng(8);
    for (const ir::Op& op : graph.ops()) {
      if (op.kind != ir::OpKind::kRmsNorm) continue;
      std::vector<float> gains(config.hidden_size);
      for (float& g : gains) g = 1 + 0.5f * rng.Normal();
      ASSERT_OK(graph.mutable_parameter(*op.weight).Replace(*WrapFloats(Tensor::FromFloats({config.hidden_size}, gains))));
    }
    const std::vector<int32_t> tokens = Tokens(15, config.vocab_size, 9);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> before, RunReference(graph, tokens));
    ASSERT_OK(ir::FoldNorms(graph));
    EXPECT_FALSE(graph.tied());
    ASSERT_OK(ir::Verify(graph));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, RunReference(graph, tokens));
    EXPECT_LT(RelativeError(after, before), 1e-5);
  }
}

TEST(Passes, FoldingIntoQuantizedWeightsIsRefused) {
  ir::Graph graph = Build(Shapes()[0]);
  Quantize(graph, SchemePairs()[5]);
  const absl::Status status = ir::FoldNorms(graph);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("already quantized"));
}

TEST(Passes, UntyingKeepsTheLogitsAndSeparatesTheTables) {
  ir::Graph graph = Build(Shapes()[0]);
  ASSERT_TRUE(graph.tied());
  const std::vector<int32_t> tokens = Tokens(5, 97, 10);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> before, RunReference(graph, tokens));
  ASSERT_OK(ir::UntieHead(graph));
  ASSERT_FALSE(graph.tied());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, RunReference(graph, tokens));
  EXPECT_EQ(before, after);
}

TEST(Passes, SelectorsSelect) {
  const ir::Graph graph = Build(Shapes()[0]);
  EXPECT_EQ(ir::SelectOps(graph, {"blocks"})->size(), 14u);
  EXPECT_EQ(ir::SelectOps(graph, {"attention"})->size(), 8u);
  EXPECT_EQ(ir::SelectOps(graph, {"mlp", "head"})->size(), 7u);
  EXPECT_EQ(ir::SelectOps(graph, {"*.down_proj"})->size(), 2u);
  EXPECT_EQ(ir::SelectOps(graph, {"model.layers.1.*"})->size(), 7u);
  EXPECT_FALSE(ir::SelectOps(graph, {"nothing*"}).ok());
}

TEST(Verifier, FindsBrokenGraphs) {
  ir::Graph graph = Build(Shapes()[0]);
  ASSERT_OK(ir::Verify(graph));
  ir::Graph undefined = graph;
  undefined.mutable_ops()[3].inputs[0] = undefined.ops()[6].output;
  EXPECT_FALSE(ir::Verify(undefined).ok());
  ir::Graph wrong_weight = graph;
  wrong_weight.mutable_ops()[2].weight = *graph.embedding().weight;
  EXPECT_FALSE(ir::Verify(wrong_weight).ok());
  ir::Graph headless = graph;
  headless.mutable_ops().pop_back();
  EXPECT_FALSE(ir::Verify(headless).ok());
}

TEST(Printer, NamesOpsAndSchemes) {
  ir::Graph graph = Build(Shapes()[0]);
  Quantize(graph, SchemePairs()[10]);
  ASSERT_OK_AND_ASSIGN(const std::string text, ir::Print(graph));
  EXPECT_THAT(text, ::testing::HasSubstr("linear(%1) model.layers.0.self_attn.q_proj W[48, 48] int4 per group of 32"));
  EXPECT_THAT(text, ::testing::HasSubstr("A int8 per token dynamic, asymmetric"));
}

}  // namespace
}  // namespace nibble
