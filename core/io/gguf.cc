#include "core/io/gguf.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/extents.h"

namespace nibble::io {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kLeastEntryBytes = 8 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 4 + 4 + 8;

// Reads forward through the header; every read is checked against the end.
class Reader {
 public:
  explicit Reader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  absl::StatusOr<T> Scalar() {
    if (remaining() < sizeof(T)) return Truncated("a number");
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string> String() {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t length, Scalar<uint64_t>());
    if (length > remaining()) return Claims("string", length, "bytes");
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + position_, length);
    position_ += length;
    return text;
  }

  // A count of things that take at least `least` bytes each.
  absl::StatusOr<uint64_t> Count(absl::string_view what, uint64_t least) {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t count, Scalar<uint64_t>());
    if (count > remaining() / least) return Claims(what, count, "elements");
    return count;
  }

 private:
  absl::Status Truncated(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("the file ends inside ", what, " at byte ", position_));
  }
  absl::Status Claims(absl::string_view what, uint64_t count, absl::string_view unit) const {
    return absl::InvalidArgumentError(absl::StrCat("a ", what, " at byte ", position_, " claims ", count, " ", unit,
                                                   ", more than the ", remaining(), " bytes that follow can hold"));
  }

  const absl::Span<const uint8_t> bytes_;
  uint64_t position_ = 0;
};

// Bytes of a scalar, the least that a string or array takes, 0 for no type.
uint64_t LeastBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8: case GgufType::kI8: case GgufType::kBool: return 1;
    case GgufType::kU16: case GgufType::kI16: return 2;
    case GgufType::kU32: case GgufType::kI32: case GgufType::kF32: return 4;
    case GgufType::kU64: case GgufType::kI64: case GgufType::kF64: case GgufType::kString: return 8;
    case GgufType::kArray: return 12;
  }
  return 0;
}

template <typename T>
absl::StatusOr<int64_t> ReadAs(Reader& reader) {
  NIBBLE_ASSIGN_OR_RETURN(const T value, reader.Scalar<T>());
  return static_cast<int64_t>(value);
}

absl::StatusOr<int64_t> ReadInteger(GgufType type, Reader& reader) {
  switch (type) {
    case GgufType::kU8: case GgufType::kBool: return ReadAs<uint8_t>(reader);
    case GgufType::kI8: return ReadAs<int8_t>(reader);
    case GgufType::kU16: return ReadAs<uint16_t>(reader);
    case GgufType::kI16: return ReadAs<int16_t>(reader);
    case GgufType::kU32: return ReadAs<uint32_t>(reader);
    case GgufType::kI32: return ReadAs<int32_t>(reader);
    default: return ReadAs<int64_t>(reader);
  }
}

absl::StatusOr<double> ReadReal(GgufType type, Reader& reader) {
  if (type == GgufType::kF64) return reader.Scalar<double>();
  NIBBLE_ASSIGN_OR_RETURN(const float value, reader.Scalar<float>());
  return static_cast<double>(value);
}

bool IsReal(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

absl::StatusOr<GgufValue> ReadArray(Reader& reader, int depth);

template <typename T, typename ReadOne>
absl::StatusOr<GgufValue> ReadItems(uint64_t count, ReadOne read_one) {
  std::vector<T> items;
  // An item may take many times its bytes in the file, so a count is believed only in part.
  items.reserve(std::min<uint64_t>(count, 1 << 16));
  for (uint64_t i = 0; i < count; ++i) {
    NIBBLE_ASSIGN_OR_RETURN(T item, read_one());
    items.push_back(std::move(item));
  }
  return GgufValue{GgufType::kArray, std::move(items)};
}

absl::StatusOr<GgufType> ReadType(Reader& reader) {
  NIBBLE_ASSIGN_OR_RETURN(const uint32_t number, reader.Scalar<uint32_t>());
  const GgufType type = static_cast<GgufType>(number);
  if (LeastBytes(type) == 0) return absl::InvalidArgumentError(absl::StrCat("unknown value type ", number));
  return type;
}

absl::StatusOr<GgufValue> ReadArray(Reader& reader, int depth) {
  if (depth > kMaxArrayDepth) return absl::InvalidArgumentError("arrays are nested too deeply");
  NIBBLE_ASSIGN_OR_RETURN(const GgufType type, ReadType(reader));
  NIBBLE_ASSIGN_OR_RETURN(const uint64_t count, reader.Count("array", LeastBytes(type)));
  if (type == GgufType::kString) return ReadItems<std::string>(count, [&] { return reader.String(); });
  if (type == GgufType::kArray) return ReadItems<GgufValue>(count, [&] { return ReadArray(reader, depth + 1); });
  if (IsReal(type)) return ReadItems<double>(count, [&] { return ReadReal(type, reader); });
  return ReadItems<int64_t>(count, [&] { return ReadInteger(type, reader); });
}

absl::StatusOr<GgufValue> ReadValue(Reader& reader) {
  NIBBLE_ASSIGN_OR_RETURN(const GgufType type, ReadType(reader));
  if (type == GgufType::kArray) return ReadArray(reader, 1);
  if (type == GgufType::kString) {
    NIBBLE_ASSIGN_OR_RETURN(std::string text, reader.String());
    return GgufValue{type, std::move(text)};
  }
  if (IsReal(type)) {
    NIBBLE_ASSIGN_OR_RETURN(const double number, ReadReal(type, reader));
    return GgufValue{type, number};
  }
  NIBBLE_ASSIGN_OR_RETURN(const int64_t number, ReadInteger(type, reader));
  return GgufValue{type, number};
}

absl::StatusOr<Shape> ReadShape(Reader& reader) {
  NIBBLE_ASSIGN_OR_RETURN(const uint32_t dimensions, reader.Scalar<uint32_t>());
  if (dimensions > kMaxDimensions) {
    return absl::InvalidArgumentError(absl::StrCat("has ", dimensions, " dimensions, at most ", kMaxDimensions, " are allowed"));
  }
  Shape shape(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    NIBBLE_ASSIGN_OR_RETURN(shape[dimensions - 1 - i], reader.Scalar<int64_t>());
  }
  return shape;
}

// Everything of a tensor but its name; the offset is still relative.
absl::StatusOr<GgufTensor> ReadTensor(Reader& reader) {
  GgufTensor tensor;
  NIBBLE_ASSIGN_OR_RETURN(tensor.shape, ReadShape(reader));
  NIBBLE_ASSIGN_OR_RETURN(const uint32_t type, reader.Scalar<uint32_t>());
  NIBBLE_ASSIGN_OR_RETURN(tensor.offset, reader.Scalar<uint64_t>());
  tensor.type = FindGgufBlockType(type);
  if (tensor.type == nullptr) return absl::UnimplementedError(absl::StrCat("element type number ", type, " is unknown"));
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(tensor.shape));
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % tensor.type->elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", row, " elements are no whole ", tensor.type->name, " blocks of ",
                                                   tensor.type->elements));
  }
  const uint64_t blocks = static_cast<uint64_t>(elements / tensor.type->elements);
  if (blocks > UINT64_MAX / 1024) return absl::InvalidArgumentError(absl::StrCat("impossible shape ", ShapeToString(tensor.shape)));
  tensor.bytes = blocks * tensor.type->bytes;
  return tensor;
}

absl::Status CheckStart(Reader& reader) {
  NIBBLE_ASSIGN_OR_RETURN(const uint32_t magic, reader.Scalar<uint32_t>());
  if (magic != kMagic) return absl::InvalidArgumentError("not a GGUF file: it does not start with \"GGUF\"");
  NIBBLE_ASSIGN_OR_RETURN(const uint32_t version, reader.Scalar<uint32_t>());
  if (version == 2 || version == 3) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("GGUF version ", version, "; Nibble reads versions 2 and 3, little endian"));
}

absl::Status ReadMetadata(Reader& reader, uint64_t count, std::map<std::string, GgufValue>* metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    auto key = reader.String();
    if (!key.ok()) return Annotate(key.status(), absl::StrCat("key of metadata entry ", i));
    auto value = ReadValue(reader);
    if (!value.ok()) return Annotate(value.status(), absl::StrCat("metadata '", *key, "'"));
    if (!metadata->emplace(*key, *std::move(value)).second) {
      return absl::InvalidArgumentError(absl::StrCat("metadata '", *key, "' appears twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTensors(Reader& reader, uint64_t count, std::map<std::string, GgufTensor>* tensors) {
  if (count > reader.remaining() / kLeastTensorBytes) {
    return absl::InvalidArgumentError(absl::StrCat("claims ", count, " tensors in ", reader.remaining(), " bytes"));
  }
  for (uint64_t i = 0; i < count; ++i) {
    auto name = reader.String();
    if (!name.ok()) return Annotate(name.status(), absl::StrCat("name of tensor ", i));
    auto tensor = ReadTensor(reader);
    if (!tensor.ok()) return Annotate(tensor.status(), absl::StrCat("tensor '", *name, "'"));
    tensor->name = *name;
    if (!tensors->emplace(*name, *std::move(tensor)).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", *name, "' appears twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::shared_ptr<GgufFile> file(new GgufFile(std::move(mapped)));
  NIBBLE_RETURN_IF_ERROR(Annotate(file->Read(), path));
  return std::shared_ptr<const GgufFile>(std::move(file));
}

absl::Status GgufFile::Read() {
  Reader reader(file_->bytes());
  NIBBLE_RETURN_IF_ERROR(CheckStart(reader));
  NIBBLE_ASSIGN_OR_RETURN(const uint64_t tensors, reader.Count("tensor list", kLeastTensorBytes));
  NIBBLE_ASSIGN_OR_RETURN(const uint64_t entries, reader.Count("metadata list", kLeastEntryBytes));
  NIBBLE_RETURN_IF_ERROR(ReadMetadata(reader, entries, &metadata_));
  NIBBLE_RETURN_IF_ERROR(ReadTensors(reader, tensors, &tensors_));
  NIBBLE_RETURN_IF_ERROR(PlaceData(reader.position()));
  return CheckOverlaps();
}

absl::Status GgufFile::CheckOverlaps() const {
  std::vector<Extent> extents;
  for (const auto& [name, tensor] : tensors_) extents.push_back({name, static_cast<uint64_t>(tensor.offset), static_cast<uint64_t>(tensor.offset + tensor.bytes)});
  const std::string overlap = DescribeOverlap(std::move(extents));
  return overlap.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(overlap, "; the file is damaged, fetch it again"));
}

absl::Status GgufFile::PlaceData(uint64_t header_end) {
  int64_t alignment = 32;
  if (Has("general.alignment")) {
    NIBBLE_ASSIGN_OR_RETURN(alignment, Integer("general.alignment"));
  }
  if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("general.alignment is ", alignment, ", expected a power of two"));
  }
  const uint64_t size = file_->bytes().size();
  const uint64_t begin = (header_end + alignment - 1) / alignment * alignment;
  const uint64_t available = begin < size ? size - begin : 0;
  for (auto& [name, tensor] : tensors_) {
    if (tensor.offset % alignment != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "': offset ", tensor.offset, " is not a multiple of ", alignment));
    }
    if (tensor.offset > available || tensor.bytes > available - tensor.offset) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", name, "': ", tensor.bytes, " bytes at offset ", tensor.offset, " leave the ", available,
                       " bytes of data; the file is truncated, fetch it again"));
    }
    tensor.offset += begin;
  }
  return absl::OkStatus();
}

const GgufTensor* GgufFile::FindTensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Span<const uint8_t> GgufFile::Bytes(const GgufTensor& tensor) const {
  if (tensor.bytes == 0) return {};
  return file_->bytes().subspan(tensor.offset, tensor.bytes);
}

template <typename T>
absl::StatusOr<const T*> GgufFile::Get(const std::string& key, absl::string_view kind) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return absl::NotFoundError(absl::StrCat(path(), ": metadata '", key, "' is missing"));
  const T* value = std::get_if<T>(&it->second.value);
  if (value != nullptr) return value;
  return absl::InvalidArgumentError(absl::StrCat(path(), ": metadata '", key, "' is not ", kind));
}

absl::StatusOr<int64_t> GgufFile::Integer(const std::string& key) const {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t* value, Get<int64_t>(key, "an integer"));
  if (*value < 0 && metadata_.at(key).type == GgufType::kU64) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": metadata '", key, "' is beyond 2^63"));
  }
  return *value;
}

absl::StatusOr<double> GgufFile::Number(const std::string& key) const {
  NIBBLE_ASSIGN_OR_RETURN(const double* value, Get<double>(key, "a floating-point number"));
  return *value;
}

absl::StatusOr<std::string> GgufFile::Text(const std::string& key) const {
  NIBBLE_ASSIGN_OR_RETURN(const std::string* value, Get<std::string>(key, "a string"));
  return *value;
}

absl::StatusOr<const std::vector<std::string>*> GgufFile::Strings(const std::string& key) const {
  return Get<std::vector<std::string>>(key, "an array of strings");
}

absl::StatusOr<const std::vector<int64_t>*> GgufFile::Integers(const std::string& key) const {
  return Get<std::vector<int64_t>>(key, "an array of integers");
}

absl::StatusOr<const std::vector<double>*> GgufFile::Numbers(const std::string& key) const {
  return Get<std::vector<double>>(key, "an array of numbers");
}

}  // namespace nibble::io
