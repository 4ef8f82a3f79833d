// Builds GGUF files for tests.
#ifndef NIBBLE_CORE_IO_GGUF_TESTING_H_
#define NIBBLE_CORE_IO_GGUF_TESTING_H_

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/io/damage_testing.h"
#include "core/io/gguf.h"

namespace nibble::io {

class GgufBuilder {
 public:
  GgufBuilder& Value(const std::string& key, GgufType type, const std::string& bytes) {
    metadata_ += String(key) + Bytes(static_cast<uint32_t>(type)) + bytes;
    ++entries_;
    return *this;
  }
  GgufBuilder& Text(const std::string& key, const std::string& text) { return Value(key, GgufType::kString, String(text)); }
  GgufBuilder& Integer(const std::string& key, uint32_t value) { return Value(key, GgufType::kU32, Bytes(value)); }
  GgufBuilder& Real(const std::string& key, float value) { return Value(key, GgufType::kF32, Bytes(value)); }
  GgufBuilder& Flag(const std::string& key, bool value) { return Value(key, GgufType::kBool, Bytes<uint8_t>(value)); }
  GgufBuilder& Array(const std::string& key, GgufType type, uint64_t count, const std::string& items) {
    return Value(key, GgufType::kArray, Bytes(static_cast<uint32_t>(type)) + Bytes(count) + items);
  }
  GgufBuilder& Strings(const std::string& key, const std::vector<std::string>& texts) {
    std::string items;
    for (const std::string& text : texts) items += String(text);
    return Array(key, GgufType::kString, texts.size(), items);
  }
  template <typename T>
  GgufBuilder& Numbers(const std::string& key, GgufType type, const std::vector<T>& numbers) {
    std::string items;
    for (const T number : numbers) items += Bytes(number);
    return Array(key, type, numbers.size(), items);
  }

  // `shape` slowest first.
  GgufBuilder& Tensor(const std::string& name, const Shape& shape, absl::string_view type, const std::string& bytes) {
    tensors_ += String(name) + Bytes(static_cast<uint32_t>(shape.size()));
    for (size_t i = shape.size(); i > 0; --i) tensors_ += Bytes(static_cast<uint64_t>(shape[i - 1]));
    tensors_ += Bytes(FindGgufBlockType(type)->id) + Bytes(static_cast<uint64_t>(data_.size()));
    data_ += bytes;
    data_.resize((data_.size() + 31) / 32 * 32);
    ++count_;
    return *this;
  }
  GgufBuilder& Floats(const std::string& name, const Shape& shape, const std::vector<float>& values) {
    return Tensor(name, shape, "F32", std::string(BytesOf(values)));
  }

  std::string Header(uint32_t version = 3) const {
    return "GGUF" + Bytes(version) + Bytes(count_) + Bytes(entries_) + metadata_ + tensors_;
  }
  std::string Build(uint32_t version = 3) const {
    std::string file = Header(version);
    file.resize((file.size() + 31) / 32 * 32);
    return file + data_;
  }

 private:
  static std::string String(const std::string& text) { return Bytes(static_cast<uint64_t>(text.size())) + text; }

  std::string metadata_, tensors_, data_;
  uint64_t entries_ = 0, count_ = 0;
};

// Random bytes, blocks with finite scales: fp16 1.0 where a type has its d or m.
inline std::string RandomBlocks(absl::string_view type, int64_t elements, uint64_t seed) {
  const GgufBlockType& block = *FindGgufBlockType(type);
  Rng rng(seed);
  std::string bytes;
  for (int64_t b = 0; b < elements / block.elements; ++b) {
    std::string one(block.bytes, '\0');
    for (char& c : one) c = static_cast<char>(rng.Next() & 0x37);  // as fp16 or bf16: finite
    if (block.elements > 1) one[1] = 0x3C, one[0] = 0;
    bytes += one;
  }
  return bytes;
}

// The metadata of a Llama with one layer: hidden 32, 4 heads of 8 rows, 2 KV
// heads, FFN 64, a SentencePiece vocabulary of 6.
inline GgufBuilder TinyLlamaMetadata() {
  GgufBuilder b;
  b.Text("general.architecture", "llama").Integer("llama.embedding_length", 32).Integer("llama.feed_forward_length", 64);
  b.Integer("llama.block_count", 1).Integer("llama.attention.head_count", 4).Integer("llama.attention.head_count_kv", 2);
  b.Integer("llama.context_length", 128).Real("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  b.Real("llama.rope.freq_base", 500000).Integer("llama.rope.dimension_count", 8);
  b.Text("tokenizer.ggml.model", "llama").Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"});
  b.Numbers<float>("tokenizer.ggml.scores", GgufType::kF32, {0, 0, 0, -3, -2, -1});
  b.Numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kI32, {2, 3, 3, 1, 1, 1});
  b.Integer("tokenizer.ggml.bos_token_id", 1).Integer("tokenizer.ggml.eos_token_id", 2);
  return b.Integer("tokenizer.ggml.unknown_token_id", 0);
}

// Its tensors: Q8_0 embedding, Q4_1 linears but for F32 query and F16 value, F32 norms.
inline void AddTinyLlamaTensors(GgufBuilder* b) {
  const std::vector<float> ones(32, 1);
  std::vector<float> query(32 * 32);
  for (size_t i = 0; i < query.size(); ++i) query[i] = static_cast<float>(i / 32);  // its row
  b->Tensor("token_embd.weight", {6, 32}, "Q8_0", RandomBlocks("Q8_0", 6 * 32, 1));
  b->Floats("output_norm.weight", {32}, ones).Floats("blk.0.attn_norm.weight", {32}, ones).Floats("blk.0.ffn_norm.weight", {32}, ones);
  b->Floats("blk.0.attn_q.weight", {32, 32}, query);
  b->Tensor("blk.0.attn_k.weight", {16, 32}, "Q4_1", RandomBlocks("Q4_1", 16 * 32, 2));
  b->Tensor("blk.0.attn_v.weight", {16, 32}, "F16", RandomBlocks("F16", 16 * 32, 3));
  b->Tensor("blk.0.attn_output.weight", {32, 32}, "Q4_1", RandomBlocks("Q4_1", 32 * 32, 4));
  b->Tensor("blk.0.ffn_gate.weight", {64, 32}, "Q4_1", RandomBlocks("Q4_1", 64 * 32, 5));
  b->Tensor("blk.0.ffn_up.weight", {64, 32}, "Q4_1", RandomBlocks("Q4_1", 64 * 32, 6));
  b->Tensor("blk.0.ffn_down.weight", {32, 64}, "Q4_1", RandomBlocks("Q4_1", 32 * 64, 7));
}

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_TESTING_H_
