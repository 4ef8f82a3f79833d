// What method tests share: a small random model and a way to run steps on it.
#ifndef NIBBLE_METHODS_TESTING_H_
#define NIBBLE_METHODS_TESTING_H_

#include <string>
#include <vector>

#include "core/base/testing.h"
#include "core/models/llama.h"
#include "core/runtime/reference.h"
#include "google/protobuf/text_format.h"
#include "methods/method.h"

namespace nibble {

// Hidden 48, ffn 100, 2 layers, GQA, tied head; widths that divide by no group.
inline ir::Graph TinyGraph(bool tied = true) {
  LlamaConfig config = *ShapePreset("tiny");
  config.tie_word_embeddings = tied;
  auto graph = BuildLlama(config, SyntheticWeights(config, 3));
  EXPECT_OK(graph);
  return *std::move(graph);
}

inline Pipeline ParsePipeline(const std::string& text) {
  Pipeline pipeline;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &pipeline)) << text;
  return pipeline;
}

// Applies "step { ... } step { ... }".
inline absl::Status ApplyText(const std::string& text, ir::Graph& graph, int threads = 1) {
  ThreadPool pool(threads);
  Context context(pool);
  return ApplyPipeline(context, ParsePipeline(text).step(), graph);
}

inline QuantScheme WeightScheme(const ir::Graph& graph, const std::string& op) {
  return graph.parameter(*graph.FindOp(op)->weight).Load()->scheme;
}

inline std::vector<float> TinyLogits(const ir::Graph& graph) {
  auto logits = RunReference(graph, {5, 17, 3, 96, 0, 42});
  EXPECT_OK(logits);
  return *std::move(logits);
}

}  // namespace nibble

#endif  // NIBBLE_METHODS_TESTING_H_
