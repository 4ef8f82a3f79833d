// What fuzz targets share: an input as a file or as several, and what must hold of an
// error. libFuzzer and the replay tests call the targets' LLVMFuzzerTestOneInput.
#ifndef NIBBLE_FUZZ_INPUT_H_
#define NIBBLE_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/ir/attachments.h"
#include "core/models/llama_config.h"
#include "core/models/weights.h"
#include "core/text/tokenizer.h"

namespace nibble::fuzz {

inline absl::string_view Text(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// An input that stands for `count` files: they are parted by lines "%%", so that most
// corpora can be read and written by hand. What follows the last of them belongs to the
// last part; parts that are not there are empty.
std::vector<absl::string_view> Parts(absl::string_view input, size_t count);

// A folder in memory for parsers that take a path, one in a process, removed at its end.
class ScratchFolder {
 public:
  // Empties the folder.
  ScratchFolder();

  const std::string& path() const { return path_; }
  // Writes a file and returns its path.
  std::string Put(const std::string& name, absl::string_view contents) const;

 private:
  const std::string path_;
};

// Ends the process unless an error is one message that a person can read: not empty,
// with `place` (a path) in it, and no longer than what it is about, `input` bytes,
// explains.
void CheckError(const absl::Status& status, absl::string_view place, size_t input);

// Ends the process with a message where a property does not hold.
#define NIBBLE_FUZZ_EXPECT(cond) ::nibble::fuzz::Expect(cond, #cond, __FILE__, __LINE__)
void Expect(bool holds, const char* what, const char* file, int line);

// Builds the graph of a model and decodes what it can load of its parameters.
void LoadWeights(const LlamaConfig& config, std::shared_ptr<const WeightStore> weights, const ir::Attachments& attachments = {});

// Encodes and decodes `text`; ids are of the vocabulary. What ToJson writes reads back.
void UseTokenizer(const text::Tokenizer& tokenizer, absl::string_view text);

}  // namespace nibble::fuzz

#endif  // NIBBLE_FUZZ_INPUT_H_
