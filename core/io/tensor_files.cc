#include "core/io/tensor_files.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"

namespace nibble::io {

void TensorFiles::Add(const std::string& name, std::shared_ptr<const SafetensorsFile> file) { files_[name] = std::move(file); }

std::vector<std::string> TensorFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) names.push_back(name);
  return names;
}

std::vector<std::string> TensorFiles::NamesBefore(const std::string& suffix) const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) {
    if (absl::EndsWith(name, suffix)) names.push_back(name.substr(0, name.size() - suffix.size()));
  }
  return names;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> TensorFiles::FileOf(const std::string& name) const {
  const auto it = files_.find(name);
  if (it != files_.end()) return it->second;
  std::set<std::string> paths;
  for (const auto& [known, file] : files_) paths.insert(file->path());
  std::string where = paths.empty() ? "" : *paths.begin();
  if (paths.size() > 1) absl::StrAppend(&where, " and ", paths.size() - 1, " more");
  return absl::NotFoundError(absl::StrCat(where, ": no tensor '", name, "'", DidYouMean(name, names())));
}

absl::StatusOr<Tensor> TensorFiles::Get(const std::string& name) const {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, FileOf(name));
  NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, file->Get(name));
  return Aligned(std::move(tensor));
}

absl::StatusOr<Tensor> TensorFiles::Get(const std::string& name, DType dtype, const Shape& shape) const {
  NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, Get(name));
  if (tensor.dtype() == dtype && tensor.shape() == shape) return tensor;
  return absl::InvalidArgumentError(absl::StrCat(Where(name), " is ", DTypeName(tensor.dtype()), " ", ShapeToString(tensor.shape()),
                                                 ", expected ", DTypeName(dtype), " ", ShapeToString(shape)));
}

absl::StatusOr<Tensor> TensorFiles::GetBytes(const std::string& name, const std::string& type) const {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, FileOf(name));
  return file->GetBytes(name, type);
}

std::string TensorFiles::Where(const std::string& name) const {
  const auto it = files_.find(name);
  return absl::StrCat(it == files_.end() ? "" : it->second->path(), ": tensor '", name, "'");
}

const std::string* TensorFiles::Metadata(const std::string& key) const {
  for (const auto& [name, file] : files_) {
    const auto it = file->metadata().find(key);
    if (it != file->metadata().end()) return &it->second;
  }
  return nullptr;
}

absl::Status TensorFiles::RefuseBias(const std::string& module) const {
  const std::string name = module + ".bias";
  if (!Has(name)) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const Tensor bias, Get(name));
  if (!IsFloating(bias.dtype())) return absl::InvalidArgumentError(absl::StrCat(Where(name), " is ", DTypeName(bias.dtype())));
  for (const float value : ToFloats(bias)) {
    if (value != 0) return absl::UnimplementedError(absl::StrCat(Where(name), " is a bias; linears carry none"));
  }
  return absl::OkStatus();
}

}  // namespace nibble::io
