// Hugging Face model folders:
//
//   config.json
//   model.safetensors, or model.safetensors.index.json and its shards
//   tokenizer.json, or else tokenizer.model, SentencePiece's or tiktoken's (Llama 3);
//   tokenizer_config.json                       (may be absent)
//
// and Nibble's checkpoints, which are such folders with two additions. A
// quantized parameter X is stored as tensors "X.<buffer>", one for each buffer
// of its format ("model.layers.0.mlp.up_proj.weight.codes"); the metadata of
// the safetensors file that holds it has the key "nibble.schemes":
//
//   {"X": {"scheme": "<QuantScheme, text format, one line>", "shape": [rows, cols]}, ...}
//
// Parameters in a float format are plain tensors, which other programs read.
// What does not belong to a tensor is in nibble.json:
//
//   {"format_version": 1, "activations": {"model.layers.0.mlp.up_proj": "<QuantScheme>"},
//    "adapters": {"model.layers.0.mlp.up_proj": {"rank": 16, "scale": 2}},
//    "rotations": {"model.layers.0.mlp.down_proj": 1536},
//    "caches": {"model.layers.0.self_attn.attention": {"keys": "<QuantScheme>", "values": "<QuantScheme>"}},
//    "pipeline": "...", "note": "..."}
//
// with the adapters' weights as "model.layers.0.mlp.up_proj.lora_A.weight" and
// "....lora_B.weight" among the others.
#ifndef NIBBLE_CORE_IO_HF_FOLDER_H_
#define NIBBLE_CORE_IO_HF_FOLDER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/ir/attachments.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

struct HfModel {
  LlamaConfig config;
  std::shared_ptr<const WeightStore> weights;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null without its file
  ir::Attachments attachments;                       // Nibble's checkpoints only
  std::string pipeline, note;
  std::vector<std::string> files;  // all that were read, config.json first
};

// Files are mapped and their headers checked; a tensor is read when the store
// is asked for it.
absl::StatusOr<HfModel> ReadHfFolder(const std::string& folder);

// Adds the tokenizer of a folder, if it has one.
absl::Status ReadFolderTokenizer(const std::string& folder, HfModel* model);

// The tokenizer of a tokenizer.json or tokenizer.model file, without a config
// beside it.
absl::StatusOr<std::shared_ptr<const text::Tokenizer>> ReadTokenizerFile(const std::string& path);

struct CheckpointParameter {
  std::string name;
  QuantScheme scheme;
  Shape shape;
};

struct Checkpoint {
  LlamaConfig config;
  std::vector<CheckpointParameter> parameters;
  // Gives one parameter, encoded as announced. Called once for each, in order;
  // only one is held at a time.
  std::function<absl::StatusOr<EncodedTensor>(const std::string& name)> load;
  ir::Attachments attachments;
  std::string pipeline, note;
  std::string tokenizer_json, tokenizer_model, tokenizer_config_json;  // "" leaves the file out
};

// Writes a folder that ReadHfFolder reads back. config.json is written last,
// and removed first where one is there: an interrupted run leaves no folder
// that loads.
absl::Status WriteCheckpoint(const std::string& folder, const Checkpoint& checkpoint);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_HF_FOLDER_H_
