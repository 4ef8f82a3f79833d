// llama2.c checkpoints, version 0. Byte layout, little endian:
//
//   7 int32  dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
//            a negative vocab_size says that the head is a matrix of its own
//   fp32     embedding; then for all layers each: attention norms, wq, wk, wv,
//            wo, FFN norms, w1 (gate), w2 (down), w3 (up); the last norm;
//            rotary cosines and sines, seq_len * head size / 2 each (unused);
//            the head, where it is its own
//
// The file's size must be exactly what the header implies.
#ifndef NIBBLE_CORE_IO_LLAMA2C_H_
#define NIBBLE_CORE_IO_LLAMA2C_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

struct Llama2cModel {
  LlamaConfig config;
  std::shared_ptr<const WeightStore> weights;  // fp32, rows in half-split order
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::string tokenizer_path;
};

// The tokenizer is tok<vocab size>.bin or tokenizer.bin in the same folder;
// null and "" when neither is there.
absl::StatusOr<Llama2cModel> ReadLlama2c(const std::string& path);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_LLAMA2C_H_
