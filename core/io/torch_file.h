// PyTorch's checkpoints (torch.save of a state dict since 1.6): a zip of stored
// entries, "<archive>/data.pkl" and the storages "<archive>/data/0", "1", ...
//
// The pickle is read by an interpreter of just the opcodes that torch.save uses for
// a dict of tensors. It executes nothing: of the names that a pickle can call it
// knows OrderedDict, _rebuild_tensor_v2, _rebuild_parameter and the storage types,
// by what they mean here; any other opcode or name is an error. What is in the dict
// beside tensors is dropped. Sources: Python's pickletools, PKWARE's APPNOTE (zip and
// zip64), PyTorch 2.15's torch/_weights_only_unpickler.py.
#ifndef NIBBLE_CORE_IO_TORCH_FILE_H_
#define NIBBLE_CORE_IO_TORCH_FILE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/file.h"
#include "core/io/safetensors.h"
#include "core/tensor/tensor.h"

namespace nibble::io {

// A tensor of a pickle: elements of a storage.
struct TorchTensor {
  DType dtype = DType::kF32;
  std::string storage;  // its key
  int64_t storage_elements = 0, offset = 0;
  Shape shape, strides;
};

// The tensors of a pickled dict by key. Errors say at which byte.
absl::StatusOr<std::map<std::string, TorchTensor>> ReadTorchPickle(absl::Span<const uint8_t> pickle);

class TorchFile {
 public:
  // Errors: no such zip, a compressed entry, a pickle that is refused, a storage that
  // is missing or too short, a tensor that leaves its storage or is not contiguous.
  static absl::StatusOr<std::shared_ptr<const TorchFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  std::vector<std::string> names() const;
  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }

  // Borrowed from the mapping where its address suits its type.
  absl::StatusOr<Tensor> Get(const std::string& name) const;

 private:
  explicit TorchFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
  absl::Status ReadEntries();
  absl::Status ReadTensors();

  const std::shared_ptr<const MappedFile> file_;
  std::map<std::string, absl::Span<const uint8_t>> entries_;
  std::map<std::string, Tensor> tensors_;
};

// Writes a file that torch.load(weights_only=True) reads, tensor by tensor in the
// order of `specs`. It appears under its name when Finish succeeds.
class TorchWriter {
 public:
  static absl::StatusOr<std::unique_ptr<TorchWriter>> Create(const std::string& path, std::vector<TensorSpec> specs);
  TorchWriter(const TorchWriter&) = delete;
  TorchWriter& operator=(const TorchWriter&) = delete;

  // An error for a tensor that is not the next of the specs.
  absl::Status Write(const std::string& name, const Tensor& tensor);
  absl::Status Finish();

 private:
  struct Entry {
    std::string name;
    uint64_t offset = 0, bytes = 0;
    uint32_t crc = 0;
  };

  TorchWriter(std::unique_ptr<PendingFile> file, std::vector<TensorSpec> specs) : file_(std::move(file)), specs_(std::move(specs)) {}
  absl::Status AddEntry(const std::string& name, absl::Span<const uint8_t> bytes);
  absl::Status Append(absl::Span<const uint8_t> bytes);

  const std::unique_ptr<PendingFile> file_;
  const std::vector<TensorSpec> specs_;
  size_t next_ = 0;
  uint64_t offset_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_TORCH_FILE_H_
