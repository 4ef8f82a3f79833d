// Parts that the writers of folders share.
#ifndef NIBBLE_CORE_IO_CHECKPOINT_FILES_H_
#define NIBBLE_CORE_IO_CHECKPOINT_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "core/io/hf_folder.h"

namespace nibble::io {

// Writes `text`, or removes the file of an earlier checkpoint when it is "".
absl::Status WriteOrRemoveFile(const std::string& path, const std::string& text);

// tokenizer.json, tokenizer.model and tokenizer_config.json.
absl::Status WriteTokenizerFiles(const std::string& folder, const Checkpoint& checkpoint);

// An error unless the tensor that a checkpoint's loader gave is as announced.
absl::Status CheckAnnounced(const CheckpointParameter& parameter, const EncodedTensor& tensor);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_CHECKPOINT_FILES_H_
