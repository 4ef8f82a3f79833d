// safetensors files. Byte layout, little endian:
//
//   u64      n, length of the header
//   n bytes  JSON: {"name": {"dtype": "BF16", "shape": [..], "data_offsets": [begin, end]}, ...,
//            "__metadata__": {"key": "text", ...}}, padded with spaces
//   rest     the tensors' bytes; offsets count from here
//
// A file is mapped and checked as a whole when it is opened, so that a tensor
// is a view that cannot leave it.
#ifndef NIBBLE_CORE_IO_SAFETENSORS_H_
#define NIBBLE_CORE_IO_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/file.h"
#include "core/tensor/tensor.h"

namespace nibble::io {

class SafetensorsFile {
 public:
  // Errors: a header that is no such JSON, a name given twice, offsets outside
  // the file, a byte count that shape and type contradict, tensors that
  // overlap.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  bool Has(const std::string& name) const { return entries_.count(name) > 0; }

  // Borrows the mapping, which stays as long as the tensor. Its address need
  // not be aligned for its type; see Aligned.
  absl::StatusOr<Tensor> Get(const std::string& name) const;

  // A tensor of the one-byte element type `type`, which need not be a DType
  // ("F8_E4M3"), as U8. Another type is an error.
  absl::StatusOr<Tensor> GetBytes(const std::string& name, const std::string& type) const;

 private:
  struct Entry {
    std::string dtype;
    Shape shape;
    uint64_t begin = 0, end = 0;
  };

  explicit SafetensorsFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
  absl::Status ReadHeader();
  absl::Status CheckOverlaps() const;
  absl::StatusOr<const Entry*> Find(const std::string& name) const;

  const std::shared_ptr<const MappedFile> file_;
  absl::Span<const uint8_t> data_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

// `tensor` itself where its address suits its type, else an aligned copy.
Tensor Aligned(Tensor tensor);

struct TensorSpec {
  std::string name;
  DType dtype;
  Shape shape;
};

// Writes a file tensor by tensor, in any order, without holding it in memory:
// all names, types and shapes are given beforehand, which fixes every offset.
// Wide types come first, so that every tensor is aligned and there are no
// gaps. The file appears under its name when Finish succeeds, not before.
class SafetensorsWriter {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(const std::string& path,
                                                                   const std::vector<TensorSpec>& specs,
                                                                   const std::map<std::string, std::string>& metadata);
  // The bytes of a whole file.
  static absl::StatusOr<std::string> ToBytes(const std::vector<std::pair<std::string, Tensor>>& tensors,
                                             const std::map<std::string, std::string>& metadata);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // An error when the tensor was not announced, was already written, or is of
  // another type or shape than announced.
  absl::Status Write(const std::string& name, const Tensor& tensor);

  // An error when an announced tensor is missing.
  absl::Status Finish();

 private:
  struct Slot {
    DType dtype;
    Shape shape;
    int64_t offset = 0;
    bool written = false;
  };

  // Without a file: into bytes_.
  explicit SafetensorsWriter(std::unique_ptr<PendingFile> file)
      : file_(std::move(file)), path_(file_ != nullptr ? file_->path() : "safetensors in memory") {}
  absl::Status Begin(const std::vector<TensorSpec>& specs, const std::map<std::string, std::string>& metadata);
  absl::Status WriteAt(int64_t offset, absl::Span<const uint8_t> bytes);
  absl::Status PlaceTensors(const std::vector<TensorSpec>& specs);
  absl::Status WriteHeader(const std::map<std::string, std::string>& metadata);
  const std::string& path() const { return path_; }

  const std::unique_ptr<PendingFile> file_;
  const std::string path_;
  std::string bytes_;
  int64_t data_begin_ = 0;
  std::map<std::string, Slot> slots_;
  std::vector<std::string> order_;  // by offset
};

// All at once.
absl::Status WriteSafetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_SAFETENSORS_H_
