// Meta's own layout of Llama checkpoints, of the quantized Llama 3.2 models
// (SpinQuant_INT4_EO8, QLORA_INT4_EO8) too:
//
//   params.json           sizes; "quantization_args": {"scheme":
//                         "int4_weight_int8_dynamic_activation", "group_size": 32,
//                         "spinquant": true}; "lora_args": {"rank": 16, "scale": 2.0}
//   consolidated.00.pth   a state dict of torch.save
//   tokenizer.model       tiktoken's; a tokenizer.json beside it goes before it
//
// Names are Meta's (layers.0.attention.wq); rows of wq and wk are interleaved
// (core/io/rope_rows.h), their scales and their adapters' B too. A quantized linear X
// is "X.weight" I8 [out, in], the codes -8 to 7 one a byte, and "X.scales"
// [out, in / group_size]; embedding and head are I8 with a scale a row. With
// "spinquant" w2 expects its input transformed by a Hadamard matrix over its whole
// width. Adapters are "X.adaptor.A.weight" and "X.adaptor.B.weight". Linears of the
// blocks and the head read int8 by token, asymmetric.
//
// Sources: SpinQuant's utils/convert_to_executorch.py (layout), llama-models'
// llama3/quantization/loader.py and llama3/args.py, ExecuTorch's
// examples/models/llama/model_args.py. Meta's files themselves were not at hand.
#ifndef NIBBLE_CORE_IO_META_FOLDER_H_
#define NIBBLE_CORE_IO_META_FOLDER_H_

#include <string>

#include "core/io/hf_folder.h"

namespace nibble::io {

// A folder with params.json and without config.json.
bool IsMetaFolder(const std::string& folder);

// Errors: a model in several .pth files, sizes that contradict the tensors, a
// quantization scheme that is not the above, a Hadamard transform of a width that is
// no power of two (such matrices are not unique).
absl::StatusOr<HfModel> ReadMetaFolder(const std::string& folder);

// Writes what ReadMetaFolder and Meta's loaders read. The checkpoint's parameters are
// all floats, or as llama32_ptq leaves them: int4 in groups and int8 inputs in the
// blocks, int8 tables with a scale a row; adapters on all linears of the blocks or on
// none. Everything else is an error that names the parameter.
absl::Status WriteMetaFolder(const std::string& folder, const Checkpoint& checkpoint);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_META_FOLDER_H_
