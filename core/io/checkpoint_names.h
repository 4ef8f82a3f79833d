// File names and metadata keys shared by the reader and the writer of
// checkpoint folders. They are persistent: never change one.
#ifndef NIBBLE_CORE_IO_CHECKPOINT_NAMES_H_
#define NIBBLE_CORE_IO_CHECKPOINT_NAMES_H_

#include <cstdint>

namespace nibble::io {

inline constexpr char kConfigFile[] = "/config.json";
inline constexpr char kWeightsFile[] = "/model.safetensors";
inline constexpr char kIndexFile[] = "/model.safetensors.index.json";
inline constexpr char kTokenizerFile[] = "/tokenizer.json";
inline constexpr char kTokenizerModelFile[] = "/tokenizer.model";
inline constexpr char kTokenizerConfigFile[] = "/tokenizer_config.json";
inline constexpr char kNibbleFile[] = "/nibble.json";
inline constexpr char kQuantizeConfigFile[] = "/quantize_config.json";
inline constexpr char kChatTemplateFile[] = "/chat_template.jinja";
inline constexpr char kGenerationConfigFile[] = "/generation_config.json";
inline constexpr char kSchemesKey[] = "nibble.schemes";
inline constexpr int64_t kFormatVersion = 1;

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_CHECKPOINT_NAMES_H_
