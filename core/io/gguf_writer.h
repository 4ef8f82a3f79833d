// Writes GGUF version 3 files (the layout is in gguf.h) tensor by tensor, without
// holding them in memory.
#ifndef NIBBLE_CORE_IO_GGUF_WRITER_H_
#define NIBBLE_CORE_IO_GGUF_WRITER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/file.h"
#include "core/io/gguf.h"

namespace nibble::io {

// Metadata entries in the order in which they are added. A key may be added once.
class GgufMetadata {
 public:
  void AddText(const std::string& key, const std::string& value);
  void AddInteger(const std::string& key, int64_t value);  // U32; a check that it fits
  void AddReal(const std::string& key, double value);      // F32
  void AddFlag(const std::string& key, bool value);
  void AddTexts(const std::string& key, const std::vector<std::string>& values);
  void AddIntegers(const std::string& key, const std::vector<int32_t>& values);
  void AddReals(const std::string& key, const std::vector<float>& values);

 private:
  friend class GgufWriter;
  void AddKey(const std::string& key, GgufType type);
  void AddArray(const std::string& key, GgufType type, uint64_t count);

  std::string bytes_;
  uint64_t entries_ = 0;
};

struct GgufTensorSpec {
  std::string name;
  Shape shape;  // slowest first, one or two dimensions
  const GgufBlockType* type = nullptr;
};

// All names, types and shapes are given beforehand, which fixes every offset; tensors
// lie in that order and can be written in any. The file appears under its name when
// Finish succeeds, not before.
class GgufWriter {
 public:
  static constexpr int64_t kAlignment = 32;  // general.alignment, which Create adds

  // Errors: a name given twice, a row that the type's blocks do not divide.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(const std::string& path, GgufMetadata metadata,
                                                            const std::vector<GgufTensorSpec>& tensors);

  // An error when the tensor was not announced, was already written, or has another
  // size than announced.
  absl::Status Write(const std::string& name, absl::Span<const uint8_t> bytes);

  // An error when an announced tensor is missing.
  absl::Status Finish();

 private:
  struct Slot {
    int64_t offset = 0, bytes = 0;  // from the start of the data
    bool written = false;
  };

  explicit GgufWriter(std::unique_ptr<PendingFile> file) : file_(std::move(file)) {}
  absl::Status WriteHeader(const GgufMetadata& metadata, const std::vector<GgufTensorSpec>& tensors);

  const std::unique_ptr<PendingFile> file_;
  int64_t data_begin_ = 0, data_bytes_ = 0;
  std::map<std::string, Slot> slots_;
};

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_WRITER_H_
