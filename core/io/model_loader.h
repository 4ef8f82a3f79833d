// Models by name: one call for everything that Nibble can run.
#ifndef NIBBLE_CORE_IO_MODEL_LOADER_H_
#define NIBBLE_CORE_IO_MODEL_LOADER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/ir/attachments.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"
#include "core/text/tokenizer.h"

namespace nibble::io {

struct LoadedModel {
  std::string source;  // the spec that was loaded
  LlamaConfig config;
  std::shared_ptr<const WeightStore> weights;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null where the source has none
  ir::Attachments attachments;                       // Nibble's checkpoints only
  std::string pipeline;                              // how a checkpoint was made
  std::string note;                                  // what a report should say about the source
  std::vector<std::string> files;                    // what the model was read from; none: synthetic
  // Which of two models the files are, where quantized weights can be taken as they are
  // stored or decoded: "" for a folder's as stored and a GGUF file's decoded.
  std::string reading;
  // Of all weights as the store gives them, in bytes: the files' sizes, or two bytes a
  // parameter of what is made or decoded in memory.
  int64_t weight_bytes = 0;

  // What the model is, whatever it is called: the SHA-256 of its one file, or
  // of the list of its files' names and SHA-256s (after the reading), or the spec of a
  // synthetic model with its seed. Reads every file, about a second for 300 MB.
  absl::StatusOr<std::string> Hash() const;
};

// `spec` is one of
//   a folder                     Hugging Face's layout (quantized ones too, see
//                                core/io/quantized), a Nibble checkpoint, or Meta's
//   path/to/model.gguf           tensors as they are stored, see core/quant/formats/gguf
//   path/to/model.bin            llama2.c version 0
//   synthetic:<preset>[:<seed>]  random weights of a published shape; seed 0
//   smollm2-135m                 a fetched model, see FetchedModels; decoded
//   decoded:<spec>               any of them with every quantized parameter decoded to BF16
//                                and no schemes of activations: what a method that
//                                quantizes needs
absl::StatusOr<LoadedModel> LoadModel(const std::string& spec);

// Models that `./nibble fetch <name>` puts into CacheDirectory()/models.
struct FetchedModel {
  std::string name, file;
};
const std::vector<FetchedModel>& FetchedModels();

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_MODEL_LOADER_H_
