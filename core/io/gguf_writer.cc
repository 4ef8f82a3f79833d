#include "core/io/gguf_writer.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/divide.h"
#include "core/base/status.h"

namespace nibble::io {
namespace {

constexpr uint32_t kVersion = 3;

template <typename T>
void Append(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(const std::string& text, std::string* out) {
  Append(static_cast<uint64_t>(text.size()), out);
  out->append(text);
}

absl::Span<const uint8_t> BytesOf(const std::string& text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

absl::StatusOr<int64_t> SizeOf(const GgufTensorSpec& tensor) {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(tensor.shape));
  if (tensor.shape.empty() || tensor.shape.back() % tensor.type->elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' ", ShapeToString(tensor.shape), ": ", tensor.type->name,
                                                   " stores blocks of ", tensor.type->elements, " columns"));
  }
  return elements / tensor.type->elements * tensor.type->bytes;
}

}  // namespace

void GgufMetadata::AddKey(const std::string& key, GgufType type) {
  AppendString(key, &bytes_);
  Append(static_cast<uint32_t>(type), &bytes_);
  ++entries_;
}

void GgufMetadata::AddArray(const std::string& key, GgufType type, uint64_t count) {
  AddKey(key, GgufType::kArray);
  Append(static_cast<uint32_t>(type), &bytes_);
  Append(count, &bytes_);
}

void GgufMetadata::AddText(const std::string& key, const std::string& value) {
  AddKey(key, GgufType::kString);
  AppendString(value, &bytes_);
}

void GgufMetadata::AddInteger(const std::string& key, int64_t value) {
  NIBBLE_CHECK(value >= 0 && value <= std::numeric_limits<uint32_t>::max());
  AddKey(key, GgufType::kU32);
  Append(static_cast<uint32_t>(value), &bytes_);
}

void GgufMetadata::AddReal(const std::string& key, double value) {
  AddKey(key, GgufType::kF32);
  Append(static_cast<float>(value), &bytes_);
}

void GgufMetadata::AddFlag(const std::string& key, bool value) {
  AddKey(key, GgufType::kBool);
  Append(static_cast<uint8_t>(value), &bytes_);
}

void GgufMetadata::AddTexts(const std::string& key, const std::vector<std::string>& values) {
  AddArray(key, GgufType::kString, values.size());
  for (const std::string& value : values) AppendString(value, &bytes_);
}

void GgufMetadata::AddIntegers(const std::string& key, const std::vector<int32_t>& values) {
  AddArray(key, GgufType::kI32, values.size());
  for (const int32_t value : values) Append(value, &bytes_);
}

void GgufMetadata::AddReals(const std::string& key, const std::vector<float>& values) {
  AddArray(key, GgufType::kF32, values.size());
  for (const float value : values) Append(value, &bytes_);
}

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(const std::string& path, GgufMetadata metadata,
                                                               const std::vector<GgufTensorSpec>& tensors) {
  NIBBLE_ASSIGN_OR_RETURN(auto file, PendingFile::Create(path));
  std::unique_ptr<GgufWriter> writer(new GgufWriter(std::move(file)));
  metadata.AddInteger("general.alignment", kAlignment);
  for (const GgufTensorSpec& tensor : tensors) {
    NIBBLE_ASSIGN_OR_RETURN(const int64_t bytes, SizeOf(tensor));
    if (!writer->slots_.emplace(tensor.name, Slot{writer->data_bytes_, bytes}).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": two tensors named '", tensor.name, "'"));
    }
    writer->data_bytes_ += RoundUp(bytes, kAlignment);
  }
  NIBBLE_RETURN_IF_ERROR(writer->WriteHeader(metadata, tensors));
  return writer;
}

absl::Status GgufWriter::WriteHeader(const GgufMetadata& metadata, const std::vector<GgufTensorSpec>& tensors) {
  std::string header = "GGUF";
  Append(kVersion, &header);
  Append(static_cast<uint64_t>(tensors.size()), &header);
  Append(metadata.entries_, &header);
  header += metadata.bytes_;
  for (const GgufTensorSpec& tensor : tensors) {
    AppendString(tensor.name, &header);
    Append(static_cast<uint32_t>(tensor.shape.size()), &header);
    for (size_t i = tensor.shape.size(); i > 0; --i) Append(static_cast<uint64_t>(tensor.shape[i - 1]), &header);
    Append(tensor.type->id, &header);
    Append(static_cast<uint64_t>(slots_.at(tensor.name).offset), &header);
  }
  header.resize(RoundUp(static_cast<int64_t>(header.size()), kAlignment), '\0');
  data_begin_ = static_cast<int64_t>(header.size());
  return file_->WriteAt(0, BytesOf(header));
}

absl::Status GgufWriter::Write(const std::string& name, absl::Span<const uint8_t> bytes) {
  const auto it = slots_.find(name);
  if (it == slots_.end() || it->second.written) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_->path(), ": tensor '", name, "' was ", it == slots_.end() ? "not announced" : "already written"));
  }
  Slot& slot = it->second;
  if (static_cast<int64_t>(bytes.size()) != slot.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_->path(), ": tensor '", name, "' has ", bytes.size(), " bytes, announced ", slot.bytes));
  }
  NIBBLE_RETURN_IF_ERROR(file_->WriteAt(data_begin_ + slot.offset, bytes));
  slot.written = true;
  const std::string padding(RoundUp(slot.bytes, kAlignment) - slot.bytes, '\0');
  return file_->WriteAt(data_begin_ + slot.offset + slot.bytes, BytesOf(padding));
}

absl::Status GgufWriter::Finish() {
  for (const auto& [name, slot] : slots_) {
    if (slot.written) continue;
    return absl::FailedPreconditionError(absl::StrCat(file_->path(), ": tensor '", name, "' was announced and never written"));
  }
  return file_->Commit();
}

}  // namespace nibble::io
