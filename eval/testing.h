// Small models, a toy tokenizer and a check of raw records for the tests of evaluators.
#ifndef NIBBLE_EVAL_TESTING_H_
#define NIBBLE_EVAL_TESTING_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/models/llama.h"
#include "core/runtime/plan.h"
#include "core/text/tokenizer.h"
#include "datasets/task.h"
#include "eval/raw_records.h"
#include "google/protobuf/text_format.h"

namespace nibble::eval {

// The "tiny" preset with an untied head and its matrices times a factor, so
// that predictions are far from uniform; or with a head of zeros.
class ToyWeights : public WeightStore {
 public:
  ToyWeights(const LlamaConfig& config, uint64_t seed, float factor, bool zero_head)
      : base_(SyntheticWeights(config, seed)), factor_(factor), zero_head_(zero_head) {}

  bool Has(const std::string& name) const override { return base_->Has(name); }
  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override {
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, base_->Load(name));
    if (tensor.shape.size() < 2) return tensor;
    const float factor = name == "lm_head.weight" && zero_head_ ? 0 : factor_;
    std::vector<float> values = Decode(tensor);
    for (float& value : values) value *= factor;
    return Encode(FloatScheme("bf16"), tensor.shape, values);
  }

 private:
  const std::shared_ptr<const WeightStore> base_;
  const float factor_;
  const bool zero_head_;
};

inline LlamaConfig ToyConfig() {
  LlamaConfig config = *ShapePreset("tiny");
  config.tie_word_embeddings = false;
  return config;
}

inline ir::Graph ToyGraph(uint64_t seed, bool zero_head = false, float factor = 10) {
  const LlamaConfig config = ToyConfig();
  auto graph = BuildLlama(config, std::make_shared<ToyWeights>(config, seed, factor, zero_head));
  NIBBLE_CHECK_OK(graph.status());
  return *std::move(graph);
}

inline std::unique_ptr<Plan> MakePlan(const ir::Graph& graph) {
  auto plan = Plan::Create(graph, *kernels::AvailableTables().front());
  NIBBLE_CHECK_OK(plan.status());
  return *std::move(plan);
}

inline std::vector<int32_t> RandomTokens(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.Below(97)));
  return tokens;
}

// BOS is 0, EOS 1, byte b is 2 + b % 80; then come `merges`, strings that become
// one token wherever they stand, looked for from the left.
class ToyTokenizer : public text::Tokenizer {
 public:
  explicit ToyTokenizer(std::vector<std::string> merges = {}) : merges_(std::move(merges)) {}

  std::vector<int32_t> Encode(absl::string_view utf8) const override {
    std::vector<int32_t> ids;
    while (!utf8.empty()) {
      int32_t id = 2 + static_cast<unsigned char>(utf8[0]) % 80;
      size_t length = 1;
      for (size_t m = 0; m < merges_.size(); ++m) {
        if (!absl::StartsWith(utf8, merges_[m])) continue;
        id = 82 + static_cast<int32_t>(m);
        length = merges_[m].size();
        break;
      }
      ids.push_back(id);
      utf8.remove_prefix(length);
    }
    return ids;
  }
  std::string Decode(absl::Span<const int32_t>) const override { return ""; }
  int32_t vocabulary_size() const override { return 97; }
  std::optional<int32_t> bos_id() const override { return bos; }
  std::optional<int32_t> eos_id() const override { return eos; }
  bool adds_bos() const override { return add; }
  std::string ToJson() const override { return ""; }
  std::string ToConfigJson() const override { return ""; }

  std::optional<int32_t> bos = 0, eos = 1;
  bool add = false;

 private:
  const std::vector<std::string> merges_;
};

// A description of a toy set with these fields, and a task of it.
inline TaskDescription Describe(const std::string& fields) {
  TaskDescription description;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString("name: 'toy' version: '3' " + fields, &description)) << fields;
  return description;
}

inline datasets::Task TaskOf(const std::string& fields, std::vector<datasets::TaskItem> items) {
  datasets::Task task;
  task.label = "toy";
  task.description = Describe(fields);
  task.preambles = {""};
  task.part_ends = {items.size()};
  for (size_t i = 0; i < items.size(); ++i) items[i].place = absl::StrCat("toy.jsonl:", i + 1);
  task.items = std::move(items);
  return task;
}

inline std::string Serialized(const std::vector<Metric>& metrics) {
  std::string bytes;
  for (const Metric& metric : metrics) absl::StrAppend(&bytes, metric.SerializeAsString(), "\n");
  return bytes;
}

// A file of the records gives their metrics, to the last bit.
inline void ExpectRecomputes(const RawRecords& records) {
  const std::string path = ::testing::TempDir() + "/recomputed.safetensors";
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ToFileBytes(records));
  ASSERT_OK(WriteFile(path, bytes));
  ASSERT_OK_AND_ASSIGN(const RawRecords read, ReadRawRecords(path));
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> measured, MetricsOf(records));
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> recomputed, MetricsOf(read));
  EXPECT_GT(measured.size(), 0);
  EXPECT_TRUE(Serialized(recomputed) == Serialized(measured)) << measured[0].name();
  ASSERT_OK_AND_ASSIGN(const std::string again, ToFileBytes(read));
  EXPECT_TRUE(again == bytes) << measured[0].name();
}

}  // namespace nibble::eval

#endif  // NIBBLE_EVAL_TESTING_H_
