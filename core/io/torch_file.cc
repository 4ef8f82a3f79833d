#include "core/io/torch_file.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/crc.hpp"
#include "core/base/status.h"
#include "core/base/suggest.h"

namespace nibble::io {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint16_t kExtra64 = 0x0001;
constexpr size_t kMaxComment = 65535;

template <typename T>
T Load(absl::Span<const uint8_t> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

absl::Status Bad(absl::string_view path, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", problem, " (not a file of torch.save, or a damaged one)"));
}

struct Directory {
  uint64_t entries = 0, offset = 0, bytes = 0;
};

// From the end record, or the 64-bit one before it.
absl::StatusOr<Directory> FindDirectory(absl::Span<const uint8_t> file, const std::string& path) {
  if (file.size() < kEndBytes) return Bad(path, absl::StrCat("only ", file.size(), " bytes long"));
  size_t at = file.size() - kEndBytes;
  const size_t last = at > kMaxComment ? at - kMaxComment : 0;
  while (Load<uint32_t>(file, at) != kEnd) {
    if (at == last) return Bad(path, "no zip end record");
    --at;
  }
  Directory directory{Load<uint16_t>(file, at + 10), Load<uint32_t>(file, at + 16), Load<uint32_t>(file, at + 12)};
  if (at >= kLocatorBytes && Load<uint32_t>(file, at - kLocatorBytes) == kLocator64) {
    const uint64_t end = Load<uint64_t>(file, at - kLocatorBytes + 8);
    if (end > file.size() || file.size() - end < kEnd64Bytes || Load<uint32_t>(file, end) != kEnd64) return Bad(path, "no zip64 end record");
    directory = {Load<uint64_t>(file, end + 32), Load<uint64_t>(file, end + 48), Load<uint64_t>(file, end + 40)};
  }
  if (directory.offset > file.size() || directory.bytes > file.size() - directory.offset || directory.entries > directory.bytes / kCentralBytes) {
    return Bad(path, "the zip directory leaves the file");
  }
  return directory;
}

struct ZipEntry {
  std::string name;
  uint64_t bytes = 0, stored = 0, offset = 0;
};

// Sizes and offset of 64 bits, where those of 32 are all ones.
void ReadExtra(absl::Span<const uint8_t> extra, ZipEntry* entry) {
  while (extra.size() >= 4) {
    const uint16_t id = Load<uint16_t>(extra, 0), size = Load<uint16_t>(extra, 2);
    if (size > extra.size() - 4) return;
    absl::Span<const uint8_t> field = extra.subspan(4, size);
    for (uint64_t* value : {&entry->bytes, &entry->stored, &entry->offset}) {
      if (id != kExtra64 || *value != 0xFFFFFFFF || field.size() < 8) continue;
      *value = Load<uint64_t>(field, 0);
      field.remove_prefix(8);
    }
    extra.remove_prefix(4 + size);
  }
}

// The bytes of an entry of the directory; checks its local header.
absl::StatusOr<absl::Span<const uint8_t>> Contents(absl::Span<const uint8_t> file, const ZipEntry& entry) {
  if (entry.offset > file.size() || file.size() - entry.offset < kLocalBytes || Load<uint32_t>(file, entry.offset) != kLocal) {
    return absl::InvalidArgumentError("no local header");
  }
  const uint64_t begin = entry.offset + kLocalBytes + Load<uint16_t>(file, entry.offset + 26) + Load<uint16_t>(file, entry.offset + 28);
  if (begin > file.size() || entry.bytes > file.size() - begin) return absl::InvalidArgumentError("leaves the file");
  return file.subspan(begin, entry.bytes);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TorchFile>> TorchFile::Open(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::shared_ptr<TorchFile> file(new TorchFile(std::move(mapped)));
  NIBBLE_RETURN_IF_ERROR(file->ReadEntries());
  NIBBLE_RETURN_IF_ERROR(file->ReadTensors());
  return std::shared_ptr<const TorchFile>(std::move(file));
}

absl::Status TorchFile::ReadEntries() {
  const absl::Span<const uint8_t> file = file_->bytes();
  NIBBLE_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(file, path()));
  absl::Span<const uint8_t> rest = file.subspan(directory.offset, directory.bytes);
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (rest.size() < kCentralBytes || Load<uint32_t>(rest, 0) != kCentral) return Bad(path(), "a damaged zip directory");
    const size_t name = Load<uint16_t>(rest, 28), extra = Load<uint16_t>(rest, 30), comment = Load<uint16_t>(rest, 32);
    if (name + extra + comment > rest.size() - kCentralBytes) return Bad(path(), "a damaged zip directory");
    ZipEntry entry{std::string(reinterpret_cast<const char*>(rest.data()) + kCentralBytes, name), Load<uint32_t>(rest, 24),
                   Load<uint32_t>(rest, 20), Load<uint32_t>(rest, 42)};
    ReadExtra(rest.subspan(kCentralBytes + name, extra), &entry);
    if (Load<uint16_t>(rest, 10) != 0 || entry.bytes != entry.stored) return Bad(path(), absl::StrCat("entry '", entry.name, "' is compressed"));
    auto contents = Contents(file, entry);
    if (!contents.ok()) return Bad(path(), absl::StrCat("entry '", entry.name, "': ", contents.status().message()));
    if (!entries_.emplace(entry.name, *contents).second) return Bad(path(), absl::StrCat("two entries '", entry.name, "'"));
    rest.remove_prefix(kCentralBytes + name + extra + comment);
  }
  return absl::OkStatus();
}

namespace {

bool IsContiguous(const TorchTensor& tensor) {
  int64_t stride = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != stride) return false;
    stride *= tensor.shape[i];
  }
  return true;
}

absl::StatusOr<Tensor> TensorIn(const TorchTensor& tensor, absl::Span<const uint8_t> storage, std::shared_ptr<const void> owner) {
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(tensor.shape));
  const int64_t size = DTypeSize(tensor.dtype), held = static_cast<int64_t>(storage.size()) / size;
  if (tensor.storage_elements > held || tensor.offset > held || elements > held - tensor.offset) {
    return absl::InvalidArgumentError(absl::StrCat("elements ", tensor.offset, " to ", tensor.offset, " + ", elements, " of a storage of ", held));
  }
  if (!IsContiguous(tensor)) return absl::UnimplementedError("is not contiguous; save it with .contiguous()");
  NIBBLE_ASSIGN_OR_RETURN(Tensor borrowed, Tensor::Borrow(tensor.dtype, tensor.shape, storage.subspan(tensor.offset * size, elements * size), owner));
  return borrowed;
}

}  // namespace

absl::Status TorchFile::ReadTensors() {
  std::string prefix;
  for (const auto& [name, bytes] : entries_) {
    if (!absl::EndsWith(name, "/data.pkl")) continue;
    if (!prefix.empty()) return Bad(path(), "two pickles");
    prefix = name.substr(0, name.size() - std::strlen("data.pkl"));
  }
  if (prefix.empty()) return Bad(path(), "no data.pkl");
  const auto order = entries_.find(prefix + "byteorder");
  if (order != entries_.end() && absl::string_view(reinterpret_cast<const char*>(order->second.data()), order->second.size()) != "little") {
    return absl::UnimplementedError(absl::StrCat(path(), ": its byte order is not little endian"));
  }
  auto tensors = ReadTorchPickle(entries_.at(prefix + "data.pkl"));
  if (!tensors.ok()) return Annotate(tensors.status(), path());
  for (const auto& [name, tensor] : *tensors) {
    const std::string where = absl::StrCat(path(), ": tensor '", name, "'");
    const auto storage = entries_.find(absl::StrCat(prefix, "data/", tensor.storage));
    if (storage == entries_.end()) return absl::InvalidArgumentError(absl::StrCat(where, ": storage '", tensor.storage, "' is missing"));
    auto read = TensorIn(tensor, storage->second, file_);
    if (!read.ok()) return Annotate(read.status(), where);
    tensors_.emplace(name, *std::move(read));
  }
  return absl::OkStatus();
}

std::vector<std::string> TorchFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

absl::StatusOr<Tensor> TorchFile::Get(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return Aligned(it->second);
  return absl::NotFoundError(absl::StrCat(path(), ": no tensor '", name, "'", DidYouMean(name, names())));
}

namespace {

constexpr char kPrefix[] = "archive/";

uint32_t Crc32(absl::Span<const uint8_t> bytes) {
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

// Little-endian bytes one after the other.
class Bytes {
 public:
  template <typename T>
  Bytes& Add(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& Text(absl::string_view text) {
    text_.append(text.data(), text.size());
    return *this;
  }
  absl::Span<const uint8_t> span() const { return {reinterpret_cast<const uint8_t*>(text_.data()), text_.size()}; }
  size_t size() const { return text_.size(); }

 private:
  std::string text_;
};

void PickleText(absl::string_view text, Bytes* out) { out->Add('X').Add<uint32_t>(text.size()).Text(text); }

void PickleInteger(int64_t value, Bytes* out) {
  if (value >= 0 && value <= 0x7FFFFFFF) out->Add('J').Add<int32_t>(value);
  else out->Add<uint8_t>(0x8A).Add<uint8_t>(8).Add(value);
}

void PickleIntegers(const Shape& values, Bytes* out) {
  out->Add('(');
  for (const int64_t value : values) PickleInteger(value, out);
  out->Add('t');
}

absl::StatusOr<const char*> StorageName(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "FloatStorage";
    case DType::kF16: return "HalfStorage";
    case DType::kBF16: return "BFloat16Storage";
    case DType::kI8: return "CharStorage";
    default: return absl::InvalidArgumentError(absl::StrCat("no storage for ", DTypeName(dtype)));
  }
}

// name: _rebuild_tensor_v2((storage, 0, shape, strides, False, OrderedDict())).
absl::Status PickleTensor(const TensorSpec& spec, size_t key, Bytes* out) {
  NIBBLE_ASSIGN_OR_RETURN(const char* storage, StorageName(spec.dtype));
  NIBBLE_ASSIGN_OR_RETURN(const int64_t elements, CheckedElements(spec.shape));
  PickleText(spec.name, out);
  out->Text("ctorch._utils\n_rebuild_tensor_v2\n((");
  PickleText("storage", out);
  out->Text(absl::StrCat("ctorch\n", storage, "\n"));
  PickleText(absl::StrCat(key), out);
  PickleText("cpu", out);
  PickleInteger(elements, out);
  out->Text("tQ");
  PickleInteger(0, out);
  PickleIntegers(spec.shape, out);
  Shape strides(spec.shape.size(), 1);
  for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * spec.shape[i];
  PickleIntegers(strides, out);
  out->Add<uint8_t>(0x89).Text("ccollections\nOrderedDict\n)RtR");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TorchWriter>> TorchWriter::Create(const std::string& path, std::vector<TensorSpec> specs) {
  Bytes pickle;
  pickle.Add<uint8_t>(0x80).Add<uint8_t>(2).Text("}(");
  for (size_t i = 0; i < specs.size(); ++i) NIBBLE_RETURN_IF_ERROR(Annotate(PickleTensor(specs[i], i, &pickle), specs[i].name));
  pickle.Text("u.");
  NIBBLE_ASSIGN_OR_RETURN(auto file, PendingFile::Create(path));
  std::unique_ptr<TorchWriter> writer(new TorchWriter(std::move(file), std::move(specs)));
  NIBBLE_RETURN_IF_ERROR(writer->AddEntry("data.pkl", pickle.span()));
  NIBBLE_RETURN_IF_ERROR(writer->AddEntry("byteorder", Bytes().Text("little").span()));
  NIBBLE_RETURN_IF_ERROR(writer->AddEntry("version", Bytes().Text("3\n").span()));
  return writer;
}

absl::Status TorchWriter::Append(absl::Span<const uint8_t> bytes) {
  NIBBLE_RETURN_IF_ERROR(file_->WriteAt(static_cast<int64_t>(offset_), bytes));
  offset_ += bytes.size();
  return absl::OkStatus();
}

// With 64-bit sizes, as PyTorch writes every entry; data begin at multiples of 64.
absl::Status TorchWriter::AddEntry(const std::string& name, absl::Span<const uint8_t> bytes) {
  const Entry entry{kPrefix + name, offset_, bytes.size(), Crc32(bytes)};
  const size_t extra = 4 + 16, begin = offset_ + kLocalBytes + entry.name.size() + extra + 4;
  const size_t padding = (64 - begin % 64) % 64;
  Bytes header;
  header.Add(kLocal).Add<uint16_t>(45).Add<uint16_t>(0).Add<uint16_t>(0).Add<uint32_t>(0).Add(entry.crc).Add(0xFFFFFFFFu).Add(0xFFFFFFFFu);
  header.Add<uint16_t>(entry.name.size()).Add<uint16_t>(extra + 4 + padding).Text(entry.name);
  header.Add(kExtra64).Add<uint16_t>(16).Add(entry.bytes).Add(entry.bytes);
  header.Add<uint16_t>(0x4246).Add<uint16_t>(padding).Text(std::string(padding, 'Z'));
  NIBBLE_RETURN_IF_ERROR(Append(header.span()));
  NIBBLE_RETURN_IF_ERROR(Append(bytes));
  entries_.push_back(entry);
  return absl::OkStatus();
}

absl::Status TorchWriter::Write(const std::string& name, const Tensor& tensor) {
  if (next_ >= specs_.size() || specs_[next_].name != name || specs_[next_].dtype != tensor.dtype() || specs_[next_].shape != tensor.shape()) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": tensor '", name, "', ", DTypeName(tensor.dtype()), " ",
                                                   ShapeToString(tensor.shape()), ", is not the next that was announced"));
  }
  return AddEntry(absl::StrCat("data/", next_++), tensor.bytes());
}

absl::Status TorchWriter::Finish() {
  if (next_ != specs_.size()) return absl::FailedPreconditionError(absl::StrCat(file_->path(), ": tensor '", specs_[next_].name, "' was never written"));
  const uint64_t directory = offset_;
  for (const Entry& entry : entries_) {
    Bytes record;
    record.Add(kCentral).Add<uint16_t>(45).Add<uint16_t>(45).Add<uint16_t>(0).Add<uint16_t>(0).Add<uint32_t>(0).Add(entry.crc);
    record.Add(0xFFFFFFFFu).Add(0xFFFFFFFFu).Add<uint16_t>(entry.name.size()).Add<uint16_t>(28).Add<uint16_t>(0).Add<uint16_t>(0);
    record.Add<uint16_t>(0).Add<uint32_t>(0).Add(0xFFFFFFFFu).Text(entry.name);
    record.Add(kExtra64).Add<uint16_t>(24).Add(entry.bytes).Add(entry.bytes).Add(entry.offset);
    NIBBLE_RETURN_IF_ERROR(Append(record.span()));
  }
  const uint64_t end = offset_, count = entries_.size();
  Bytes tail;
  tail.Add(kEnd64).Add<uint64_t>(kEnd64Bytes - 12).Add<uint16_t>(45).Add<uint16_t>(45).Add<uint32_t>(0).Add<uint32_t>(0);
  tail.Add(count).Add(count).Add(end - directory).Add(directory);
  tail.Add(kLocator64).Add<uint32_t>(0).Add(end).Add<uint32_t>(1);
  tail.Add(kEnd).Add<uint16_t>(0).Add<uint16_t>(0).Add<uint16_t>(0xFFFF).Add<uint16_t>(0xFFFF).Add(0xFFFFFFFFu).Add(0xFFFFFFFFu).Add<uint16_t>(0);
  NIBBLE_RETURN_IF_ERROR(Append(tail.span()));
  return file_->Commit();
}

}  // namespace nibble::io
