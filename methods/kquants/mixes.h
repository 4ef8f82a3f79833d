// llama.cpp's mixes of block types: which type a tensor gets by its place in a
// Llama-family model. Source: llama_tensor_get_type in llama.cpp's llama-quant.cpp,
// without the rules for other architectures and mixtures of experts.
#ifndef NIBBLE_METHODS_KQUANTS_MIXES_H_
#define NIBBLE_METHODS_KQUANTS_MIXES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/ir/graph.h"

namespace nibble {

enum class TensorPlace { kEmbedding, kOutput, kQuery, kKey, kValue, kAttentionOutput, kGate, kUp, kDown };

struct TensorInModel {
  TensorPlace place = TensorPlace::kQuery;  // of a tied embedding and head kOutput
  int layer = 0;                            // of `layers`; 0 outside blocks
  int layers = 1;
  int64_t queries_per_key = 1;              // attention heads that share one KV head
  int64_t cols = 0;                         // length of a row
};

struct ChosenType {
  std::string format;   // "q6_k"; "fp16" where no block fits
  std::string instead;  // what the mix says where rows do not fit it; "" otherwise
};

// The type by a mix's name, "Q4_K_M". Where blocks of 256 do not divide the row, q4_k
// becomes q5_0, q5_k q5_1, q6_k q8_0, q2_k and q3_k iq4_nl, and the output q8_0; where
// blocks of 32 do not either, fp16. InvalidArgument for an unknown mix.
absl::StatusOr<ChosenType> TypeInMix(const std::string& mix, const TensorInModel& tensor);

// `format`, or what takes its place for rows of `cols`.
ChosenType FittingType(const std::string& format, int64_t cols);

std::vector<std::string> MixNames();

// Where the tensor of an op stands. An error for an op of no Llama.
absl::StatusOr<TensorInModel> PlaceOf(const ir::Graph& graph, const ir::Op& op);

}  // namespace nibble

#endif  // NIBBLE_METHODS_KQUANTS_MIXES_H_
