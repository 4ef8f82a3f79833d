// GGUF files, versions 2 and 3, little endian. Byte layout:
//
//   "GGUF", u32 version, u64 tensors, u64 metadata entries
//   entry   string key, u32 type, value          string: u64 length, bytes
//           an array value: u32 type, u64 count, values
//   tensor  string name, u32 dimensions, u64 sizes (fastest first), u32 type,
//           u64 offset from the start of the data
//   zeros to the next multiple of general.alignment (32 unless given), data
//
// The whole header is checked when a file is opened: no count is believed
// before the bytes that it needs are known to be there.
#ifndef NIBBLE_CORE_IO_GGUF_H_
#define NIBBLE_CORE_IO_GGUF_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/file.h"
#include "core/io/gguf_blocks.h"
#include "core/tensor/tensor.h"

namespace nibble::io {

// Keys of the tokenizer's metadata.
inline constexpr char kGgufTokenizerPrefix[] = "tokenizer.ggml.";
inline constexpr char kGgufChatTemplateKey[] = "tokenizer.chat_template";

enum class GgufType : uint32_t {
  kU8 = 0, kI8 = 1, kU16 = 2, kI16 = 3, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7,
  kString = 8, kArray = 9, kU64 = 10, kI64 = 11, kF64 = 12,
};

// A metadata value. Integers and bools are int64 (a u64 above that range wraps
// and is refused when it is asked for), both float types double; an array of
// scalars or strings is one typed vector.
struct GgufValue {
  GgufType type = GgufType::kU8;
  std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>,
               std::vector<GgufValue>>
      value;
};

struct GgufTensor {
  std::string name;
  Shape shape;  // slowest first, as everywhere in Nibble
  const GgufBlockType* type = nullptr;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  static absl::StatusOr<std::shared_ptr<const GgufFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }

  // Null when absent.
  const GgufTensor* FindTensor(const std::string& name) const;
  absl::Span<const uint8_t> Bytes(const GgufTensor& tensor) const;
  const std::shared_ptr<const MappedFile>& mapping() const { return file_; }

  // A metadata value of the wanted kind. Absent: NotFound. Another kind, or
  // out of range: InvalidArgument. Arrays live as long as the file.
  bool Has(const std::string& key) const { return metadata_.count(key) > 0; }
  absl::StatusOr<int64_t> Integer(const std::string& key) const;
  absl::StatusOr<double> Number(const std::string& key) const;
  absl::StatusOr<std::string> Text(const std::string& key) const;
  absl::StatusOr<const std::vector<std::string>*> Strings(const std::string& key) const;
  absl::StatusOr<const std::vector<int64_t>*> Integers(const std::string& key) const;
  absl::StatusOr<const std::vector<double>*> Numbers(const std::string& key) const;

 private:
  explicit GgufFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
  absl::Status Read();
  absl::Status PlaceData(uint64_t header_end);
  absl::Status CheckOverlaps() const;
  template <typename T>
  absl::StatusOr<const T*> Get(const std::string& key, absl::string_view kind) const;

  const std::shared_ptr<const MappedFile> file_;
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufTensor> tensors_;
};

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_GGUF_H_
