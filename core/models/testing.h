// Small models for tests.
#ifndef NIBBLE_CORE_MODELS_TESTING_H_
#define NIBBLE_CORE_MODELS_TESTING_H_

#include <vector>

#include "core/base/testing.h"
#include "core/models/llama.h"

namespace nibble {

// Hidden 24, heads of 8, feed-forward 40, 2 layers; fp32 weights large enough
// for attention to choose, gains that differ.
inline ir::Graph AttentiveGraph(int64_t heads, int64_t kv_heads, bool tied) {
  LlamaConfig config = *ShapePreset("tiny");
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = 8;
  config.tie_word_embeddings = tied;
  auto graph = BuildLlama(config, SyntheticWeights(config, 7));
  EXPECT_OK(graph);
  for (size_t p = 0; p < graph->parameters().size(); ++p) {
    ir::Parameter& parameter = graph->mutable_parameter(static_cast<ir::ParameterId>(p));
    std::vector<float> values = *parameter.LoadFloats();
    for (size_t i = 0; i < values.size(); ++i) values[i] *= parameter.shape().size() == 2 ? 8.0f : 0.5f + 0.1f * static_cast<float>(i % 9);
    EXPECT_OK(parameter.Replace(*WrapFloats(Tensor::FromFloats(parameter.shape(), values))));
  }
  return *std::move(graph);
}

}  // namespace nibble

#endif  // NIBBLE_CORE_MODELS_TESTING_H_
