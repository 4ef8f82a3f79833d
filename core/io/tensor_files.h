// The tensors of a model's safetensors files by name, whichever file holds one.
#ifndef NIBBLE_CORE_IO_TENSOR_FILES_H_
#define NIBBLE_CORE_IO_TENSOR_FILES_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/safetensors.h"
#include "core/tensor/tensor.h"

namespace nibble::io {

class TensorFiles {
 public:
  // A tensor added twice is the one of the later file.
  void Add(const std::string& name, std::shared_ptr<const SafetensorsFile> file);

  bool Has(const std::string& name) const { return files_.count(name) > 0; }
  std::vector<std::string> names() const;
  // The names that end with `suffix`, without it.
  std::vector<std::string> NamesBefore(const std::string& suffix) const;

  // Borrowed from the mapped file and aligned. Errors: NotFound with "did you
  // mean", an element type that is no DType.
  absl::StatusOr<Tensor> Get(const std::string& name) const;
  // The same; another type or shape is an error.
  absl::StatusOr<Tensor> Get(const std::string& name, DType dtype, const Shape& shape) const;
  // A tensor of the one-byte element type `type`, spelt as safetensors does, as U8.
  absl::StatusOr<Tensor> GetBytes(const std::string& name, const std::string& type) const;

  // Linears of the graph carry no bias: an error where `module` has one that is not zero
  // (AutoGPTQ writes zeros).
  absl::Status RefuseBias(const std::string& module) const;

  // "path: tensor 'name'" for messages.
  std::string Where(const std::string& name) const;

  // An entry of the metadata of any of the files; null without one.
  const std::string* Metadata(const std::string& key) const;

 private:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> FileOf(const std::string& name) const;

  std::map<std::string, std::shared_ptr<const SafetensorsFile>> files_;
};

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_TENSOR_FILES_H_
