#include "core/io/safetensors.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/io/extents.h"
#include "core/io/strict_json.h"

namespace nibble::io {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kPrefixBytes = 8;
constexpr char kMetadataKey[] = "__metadata__";

absl::Status Bad(absl::string_view path, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", problem, " (not a safetensors file, or a damaged one)"));
}

// The JSON text of the header.
absl::StatusOr<absl::string_view> HeaderText(const MappedFile& file) {
  const auto bytes = file.bytes();
  if (bytes.size() < kPrefixBytes) return Bad(file.path(), absl::StrCat("only ", bytes.size(), " bytes long"));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > bytes.size() - kPrefixBytes || length > kMaxHeaderBytes) {
    return Bad(file.path(), absl::StrCat("claims a header of ", length, " bytes in a file of ", bytes.size()));
  }
  return absl::string_view(reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, length);
}

// An array of unsigned numbers as `out`; false for anything else.
bool ReadNumbers(const json& value, const char* key, std::vector<uint64_t>* out) {
  const auto it = value.find(key);
  if (it == value.end() || !it->is_array()) return false;
  for (const json& item : *it) {
    if (!item.is_number_unsigned()) return false;
    out->push_back(item.get<uint64_t>());
  }
  return true;
}

absl::StatusOr<std::map<std::string, std::string>> ReadMetadata(const json& value, const std::string& path) {
  if (!value.is_object()) return Bad(path, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return Bad(path, absl::StrCat("metadata '", key, "' is not a string"));
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

// Bytes that the tensor must have; nothing for a type that Nibble cannot read.
absl::Status CheckByteCount(const std::string& dtype, const Shape& shape, uint64_t bytes) {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(shape));
  const auto type = DTypeFromName(dtype);
  if (!type.ok()) return absl::OkStatus();
  const uint64_t expected = static_cast<uint64_t>(elements) * DTypeSize(*type);
  if (expected == bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(dtype, " of shape ", ShapeToString(shape), " needs ", expected, " bytes, its offsets span ", bytes));
}

std::vector<TensorSpec> SpecsOf(const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype(), tensor.shape()});
  return specs;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(std::move(mapped)));
  NIBBLE_RETURN_IF_ERROR(file->ReadHeader());
  NIBBLE_RETURN_IF_ERROR(file->CheckOverlaps());
  return std::shared_ptr<const SafetensorsFile>(std::move(file));
}

absl::Status SafetensorsFile::ReadHeader() {
  NIBBLE_ASSIGN_OR_RETURN(const absl::string_view text, HeaderText(*file_));
  data_ = file_->bytes().subspan(kPrefixBytes + text.size());
  NIBBLE_ASSIGN_OR_RETURN(const json header, ParseStrictObject(text, absl::StrCat(path(), " header")));
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey) {
      NIBBLE_ASSIGN_OR_RETURN(metadata_, ReadMetadata(value, path()));
      continue;
    }
    const std::string where = absl::StrCat("tensor '", name, "': ");
    std::vector<uint64_t> shape, offsets;
    const auto dtype = value.is_object() ? value.find("dtype") : value.end();
    if (!value.is_object() || dtype == value.end() || !dtype->is_string() || !ReadNumbers(value, "shape", &shape) ||
        !ReadNumbers(value, "data_offsets", &offsets) || offsets.size() != 2) {
      return Bad(path(), absl::StrCat(where, "expected dtype, shape and two data_offsets"));
    }
    Entry entry{dtype->get<std::string>(), Shape(shape.begin(), shape.end()), offsets[0], offsets[1]};
    if (entry.begin > entry.end || entry.end > data_.size()) {
      return Bad(path(), absl::StrCat(where, "offsets [", entry.begin, ", ", entry.end, "] leave the ", data_.size(),
                                      " bytes of data"));
    }
    const absl::Status size = CheckByteCount(entry.dtype, entry.shape, entry.end - entry.begin);
    if (!size.ok()) return Bad(path(), absl::StrCat(where, size.message()));
    entries_.emplace(name, std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckOverlaps() const {
  std::vector<Extent> extents;
  for (const auto& [name, entry] : entries_) extents.push_back({name, entry.begin, entry.end});
  const std::string overlap = DescribeOverlap(std::move(extents));
  return overlap.empty() ? absl::OkStatus() : Bad(path(), overlap);
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(entry.first);
  return names;
}

absl::StatusOr<const SafetensorsFile::Entry*> SafetensorsFile::Find(const std::string& name) const {
  const auto it = entries_.find(name);
  if (it != entries_.end()) return &it->second;
  return absl::NotFoundError(absl::StrCat(path(), ": no tensor '", name, "'", DidYouMean(name, names())));
}

absl::StatusOr<Tensor> SafetensorsFile::Get(const std::string& name) const {
  NIBBLE_ASSIGN_OR_RETURN(const Entry* found, Find(name));
  const Entry& entry = *found;
  const auto dtype = DTypeFromName(entry.dtype);
  if (!dtype.ok()) {
    return absl::UnimplementedError(absl::StrCat(path(), ": tensor '", name, "' has element type ", entry.dtype,
                                                 ", which Nibble does not read; store it as F32, F16 or BF16"));
  }
  return Tensor::Borrow(*dtype, entry.shape, data_.subspan(entry.begin, entry.end - entry.begin), file_);
}

absl::StatusOr<Tensor> SafetensorsFile::GetBytes(const std::string& name, const std::string& type) const {
  NIBBLE_ASSIGN_OR_RETURN(const Entry* entry, Find(name));
  const std::string where = absl::StrCat(path(), ": tensor '", name, "'");
  if (entry->dtype != type) {
    return absl::InvalidArgumentError(absl::StrCat(where, " has element type ", entry->dtype, ", expected ", type));
  }
  auto bytes = Tensor::Borrow(DType::kU8, entry->shape, data_.subspan(entry->begin, entry->end - entry->begin), file_);
  return bytes.ok() ? bytes : Annotate(bytes.status(), where);
}

Tensor Aligned(Tensor tensor) {
  const auto bytes = tensor.bytes();
  if (reinterpret_cast<uintptr_t>(bytes.data()) % DTypeSize(tensor.dtype()) == 0) return tensor;
  auto copy = std::make_shared<std::vector<uint8_t>>(bytes.begin(), bytes.end());
  return Tensor::Borrow(tensor.dtype(), tensor.shape(), *copy, copy).value();
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, const std::vector<TensorSpec>& specs, const std::map<std::string, std::string>& metadata) {
  NIBBLE_ASSIGN_OR_RETURN(auto file, PendingFile::Create(path));
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(std::move(file)));
  NIBBLE_RETURN_IF_ERROR(writer->Begin(specs, metadata));
  return writer;
}

absl::StatusOr<std::string> SafetensorsWriter::ToBytes(const std::vector<std::pair<std::string, Tensor>>& tensors,
                                                       const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer(nullptr);
  NIBBLE_RETURN_IF_ERROR(writer.Begin(SpecsOf(tensors), metadata));
  for (const auto& [name, tensor] : tensors) {
    NIBBLE_RETURN_IF_ERROR(writer.Write(name, tensor));
  }
  return std::move(writer.bytes_);
}

absl::Status SafetensorsWriter::Begin(const std::vector<TensorSpec>& specs, const std::map<std::string, std::string>& metadata) {
  NIBBLE_RETURN_IF_ERROR(PlaceTensors(specs));
  return WriteHeader(metadata);
}

absl::Status SafetensorsWriter::WriteAt(int64_t offset, absl::Span<const uint8_t> bytes) {
  if (file_ != nullptr) return file_->WriteAt(offset, bytes);
  bytes_.resize(std::max(bytes_.size(), static_cast<size_t>(offset) + bytes.size()));
  std::copy(bytes.begin(), bytes.end(), bytes_.begin() + offset);
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::PlaceTensors(const std::vector<TensorSpec>& specs) {
  for (const TensorSpec& spec : specs) {
    NIBBLE_RETURN_IF_ERROR(CheckedElements(spec.shape).status());
    if (spec.name == kMetadataKey || !slots_.emplace(spec.name, Slot{spec.dtype, spec.shape}).second) {
      return absl::InvalidArgumentError(absl::StrCat(path(), ": two tensors named '", spec.name, "'"));
    }
    order_.push_back(spec.name);
  }
  std::stable_sort(order_.begin(), order_.end(), [this](const std::string& a, const std::string& b) {
    return DTypeSize(slots_.at(a).dtype) > DTypeSize(slots_.at(b).dtype);
  });
  int64_t offset = 0;
  for (const std::string& name : order_) {
    Slot& slot = slots_.at(name);
    slot.offset = offset;
    offset += CheckedElements(slot.shape).value() * DTypeSize(slot.dtype);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::WriteHeader(const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  for (const std::string& name : order_) {
    const Slot& slot = slots_.at(name);
    const int64_t bytes = CheckedElements(slot.shape).value() * DTypeSize(slot.dtype);
    header[name] = {{"dtype", std::string(DTypeName(slot.dtype))},
                    {"shape", slot.shape},
                    {"data_offsets", {slot.offset, slot.offset + bytes}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": a name or metadata text is not UTF-8: ", error.what()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  text.insert(0, reinterpret_cast<const char*>(&length), sizeof(length));
  data_begin_ = static_cast<int64_t>(text.size());
  return WriteAt(0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

absl::Status SafetensorsWriter::Write(const std::string& name, const Tensor& tensor) {
  const auto it = slots_.find(name);
  if (it == slots_.end() || it->second.written) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": tensor '", name, "' was ", it == slots_.end() ? "not announced" : "already written"));
  }
  Slot& slot = it->second;
  if (tensor.dtype() != slot.dtype || tensor.shape() != slot.shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        path(), ": tensor '", name, "' is ", DTypeName(tensor.dtype()), " ", ShapeToString(tensor.shape()), ", announced ",
        DTypeName(slot.dtype), " ", ShapeToString(slot.shape)));
  }
  NIBBLE_RETURN_IF_ERROR(WriteAt(data_begin_ + slot.offset, tensor.bytes()));
  slot.written = true;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  for (const std::string& name : order_) {
    if (!slots_.at(name).written) {
      return absl::FailedPreconditionError(absl::StrCat(path(), ": tensor '", name, "' was announced and never written"));
    }
  }
  return file_->Commit();
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  NIBBLE_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, SpecsOf(tensors), metadata));
  for (const auto& [name, tensor] : tensors) NIBBLE_RETURN_IF_ERROR(writer->Write(name, tensor));
  return writer->Finish();
}

}  // namespace nibble::io
