// Float ops against fp64: RMSNorm, rotary embedding at positions from 100,
// causal grouped-query attention on both executors.

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/golden/golden_testing.h"
#include "core/ir/graph.h"
#include "core/kernels/kernel_table.h"
#include "core/models/llama_config.h"
#include "core/runtime/plan.h"
#include "core/runtime/reference.h"
#include "core/runtime/session.h"

namespace nibble {
namespace {

constexpr int64_t kTokens = 13, kHeads = 6, kKvHeads = 2, kHeadDim = 16;
constexpr int64_t kWidth = kHeads * kHeadDim, kKvWidth = kKvHeads * kHeadDim, kHidden = kWidth + 2 * kKvWidth;
constexpr int64_t kFirstPosition = 100;
constexpr double kTolerance = 2e-6;

struct RopeCase {
  const char* name;  // in the golden tensors
  LlamaConfig config;
};

std::vector<RopeCase> RopeCases() {
  LlamaConfig plain;
  plain.head_dim = kHeadDim;
  plain.rope_theta = 1e4;
  LlamaConfig scaled = plain;
  scaled.rope_theta = 5e5;
  scaled.rope_scaling = Llama3RopeScaling{32, 1, 4, 8192};
  return {{"theta1e4", plain}, {"llama32_theta5e5_factor32", scaled}};
}

class OpsGolden : public GoldenTest {
 protected:
  OpsGolden() : GoldenTest("numerics.safetensors") {}
};

TEST_F(OpsGolden, RmsNormOnEveryTable) {
  const Tensor x = Golden("ops.rmsnorm.x"), expected = Golden("ops.rmsnorm.y_eps1e-5");
  const std::vector<float> in = ToFloats(x), gain = ToFloats(Golden("ops.rmsnorm.gain"));
  const int64_t n = x.dim(1);
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    std::vector<float> y(x.elements());
    for (int64_t t = 0; t < x.dim(0); ++t) table->rms_norm(&in[t * n], gain.data(), n, 1e-5f, &y[t * n]);
    EXPECT_LT(MaxError(y, expected.as<double>()), kTolerance) << table->name;
  }
}

TEST_F(OpsGolden, RopeInverseFrequencies) {
  for (const RopeCase& rope : RopeCases()) {
    const Tensor expected = Golden(absl::StrCat("ops.rope.", rope.name, ".inv_freq"));
    const std::vector<double> got = rope.config.InverseFrequencies();
    ASSERT_EQ(got.size(), expected.elements());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i] / expected.as<double>()[i], 1, 1e-12) << rope.name;
  }
}

// A graph without weights of its own: token t of the golden tensors embeds as
// [q | k | v], 0/1 matrices pick the parts, the head is the identity, so that
// the logits are the attention's output. Token kFiller embeds as ones.
constexpr int32_t kFiller = kTokens;

EncodedTensor Floats(const Shape& shape, const std::vector<float>& values) {
  return WrapFloats(Tensor::FromFloats(shape, values)).value();
}

// [rows, cols] with ones at (i, first + i).
EncodedTensor Selector(int64_t rows, int64_t cols, int64_t first) {
  std::vector<float> values(rows * cols);
  for (int64_t i = 0; i < rows; ++i) values[i * cols + first + i] = 1;
  return Floats({rows, cols}, values);
}

class AttentionGraph {
 public:
  AttentionGraph(EncodedTensor table, std::vector<double> frequencies, std::optional<int64_t> window)
      : frequencies_(std::move(frequencies)) {
    const ir::ValueId x = Weighted(ir::OpKind::kEmbed, "embed", {}, kHidden, std::move(table));
    const ir::ValueId q = Pick("q", x, kWidth, 0), k = Pick("k", x, kKvWidth, kWidth);
    const ir::ValueId v = Pick("v", x, kKvWidth, kWidth + kKvWidth);
    ir::Op op{ir::OpKind::kAttention, "attention", {Rope("q_rope", q, kHeads), Rope("k_rope", k, kKvHeads), v}};
    op.heads = kHeads;
    op.kv_heads = kKvHeads;
    op.head_dim = kHeadDim;
    op.sliding_window = window;
    const ir::ValueId y = Emit(std::move(op), kWidth);
    Weighted(ir::OpKind::kLogits, "head", {y}, kWidth, Selector(kWidth, kWidth, 0));
  }

  const ir::Graph& graph() const { return graph_; }

 private:
  ir::ValueId Emit(ir::Op op, int64_t width) {
    op.output = graph_.AddValue(op.name, width);
    return graph_.AddOp(std::move(op)).output;
  }

  ir::ValueId Weighted(ir::OpKind kind, const char* name, std::vector<ir::ValueId> inputs, int64_t width,
                       EncodedTensor weight) {
    ir::Op op{kind, name, std::move(inputs)};
    op.weight = graph_.AddParameter(name, weight.shape, [weight] { return weight; });
    return Emit(std::move(op), width);
  }

  ir::ValueId Pick(const char* name, ir::ValueId x, int64_t width, int64_t first) {
    return Weighted(ir::OpKind::kLinear, name, {x}, width, Selector(width, kHidden, first));
  }

  ir::ValueId Rope(const char* name, ir::ValueId x, int64_t heads) {
    ir::Op op{ir::OpKind::kRope, name, {x}};
    op.heads = heads;
    op.head_dim = kHeadDim;
    op.inverse_frequencies = frequencies_;
    return Emit(std::move(op), heads * kHeadDim);
  }

  const std::vector<double> frequencies_;
  ir::Graph graph_;
};

class AttentionGolden : public OpsGolden {
 protected:
  EncodedTensor Table() const {
    std::vector<float> values((kTokens + 1) * kHidden, 1.0f);
    const auto place = [&](const std::string& name, int64_t width, int64_t first) {
      const std::vector<float> part = ToFloats(Golden(name));
      for (int64_t t = 0; t < kTokens; ++t) {
        std::copy_n(&part[t * width], width, &values[t * kHidden + first]);
      }
    };
    place("ops.rope.q", kWidth, 0);
    place("ops.rope.k", kKvWidth, kWidth);
    place("ops.attn.v", kKvWidth, kWidth + kKvWidth);
    return Floats({kTokens + 1, kHidden}, values);
  }

  ir::Graph Graph(const RopeCase& rope, std::optional<int64_t> window = std::nullopt) const {
    return AttentionGraph(Table(), rope.config.InverseFrequencies(), window).graph();
  }

  Tensor Attended(const RopeCase& rope) const { return Golden(absl::StrCat("ops.attn.", rope.name, ".y")); }
};

// `filler` fillers, then the golden tokens.
std::vector<int32_t> Tokens(int64_t filler) {
  std::vector<int32_t> tokens(filler, kFiller);
  for (int32_t t = 0; t < kTokens; ++t) tokens.push_back(t);
  return tokens;
}

// The last kTokens rows of `width` values.
std::vector<float> GoldenRows(absl::Span<const float> y, int64_t width) { return {y.end() - kTokens * width, y.end()}; }

// Logits of all tokens, fed `step` at a time.
absl::StatusOr<std::vector<float>> RunSession(const Plan& plan, absl::Span<const int32_t> tokens, int64_t step) {
  ThreadPool pool(2);
  const int64_t count = static_cast<int64_t>(tokens.size());
  NIBBLE_ASSIGN_OR_RETURN(const auto session, Session::Create(plan, pool, {1, count}));
  std::vector<float> logits(count * plan.vocab_size()), hidden;
  for (int64_t t = 0; t < count; t += step) {
    const auto part = tokens.subspan(t, step);
    NIBBLE_RETURN_IF_ERROR(session->Forward({{0, part}}, &hidden));
    NIBBLE_RETURN_IF_ERROR(session->Logits(hidden.data(), part.size(), &logits[t * plan.vocab_size()]));
  }
  return logits;
}

// The outputs of both executors on every table, in one piece and token by
// token, with a name for each.
absl::StatusOr<std::map<std::string, std::vector<float>>> RunEverywhere(const ir::Graph& graph,
                                                                        const std::vector<int32_t>& tokens) {
  std::map<std::string, std::vector<float>> results;
  NIBBLE_ASSIGN_OR_RETURN(results["reference"], RunReference(graph, tokens));
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    NIBBLE_ASSIGN_OR_RETURN(const auto plan, Plan::Create(graph, *table));
    const int64_t count = static_cast<int64_t>(tokens.size());
    NIBBLE_ASSIGN_OR_RETURN(results[table->name + ", one piece"], RunSession(*plan, tokens, count));
    NIBBLE_ASSIGN_OR_RETURN(results[table->name + ", token by token"], RunSession(*plan, tokens, 1));
  }
  return results;
}

TEST_F(AttentionGolden, RotatedQueriesAndKeysFromPosition100) {
  for (const RopeCase& rope : RopeCases()) {
    std::map<std::string, std::vector<float>> rotated;
    const auto observe = [&](const ir::Op& op, absl::Span<const float> y) {
      if (op.kind == ir::OpKind::kRope) rotated[op.name] = GoldenRows(y, op.heads * op.head_dim);
    };
    ASSERT_OK(RunReference(Graph(rope), Tokens(kFirstPosition), observe));
    for (const std::string part : {"q", "k"}) {
      const Tensor expected = Golden(absl::StrCat("ops.rope.", rope.name, ".", part, "_at_100"));
      EXPECT_LT(MaxError(rotated[part + "_rope"], expected.as<double>()), kTolerance) << rope.name << " " << part;
    }
  }
}

// Attention sees differences of positions only, so that 0 may stand for 100.
TEST_F(AttentionGolden, CausalGroupedQueryAttention) {
  for (const RopeCase& rope : RopeCases()) {
    const Tensor expected = Attended(rope);
    ASSERT_OK_AND_ASSIGN(const auto results, RunEverywhere(Graph(rope), Tokens(0)));
    for (const auto& [name, y] : results) {
      EXPECT_LT(MaxError(y, expected.as<double>()), kTolerance) << rope.name << ", " << name;
    }
  }
}

// A window of kTokens hides the fillers from the last golden token alone.
TEST_F(AttentionGolden, LastTokenAtItsOwnPosition) {
  for (const RopeCase& rope : RopeCases()) {
    const Tensor attended = Attended(rope);
    const absl::Span<const double> expected = attended.as<double>().last(kWidth);
    ASSERT_OK_AND_ASSIGN(const auto results, RunEverywhere(Graph(rope, kTokens), Tokens(kFirstPosition)));
    for (const auto& [name, y] : results) {
      EXPECT_LT(MaxError(absl::MakeConstSpan(y).last(kWidth), expected), kTolerance) << rope.name << ", " << name;
    }
  }
}

}  // namespace
}  // namespace nibble
