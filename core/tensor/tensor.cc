#include "core/tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/divide.h"
#include "core/base/status.h"

namespace nibble {
namespace {

constexpr size_t kPage = 2 << 20;
constexpr size_t kLine = 64;
// From here on a tensor has a mapping of its own. In the heap it would keep what was freed
// around it from going back to the system.
constexpr size_t kOwnMapping = 1 << 20;

// Large weights are streamed: with 2 MiB pages decoding reads a few per cent
// faster. The kernel is free to refuse.
void AskForHugePages(void* memory, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  const size_t skip = (kPage - address % kPage) % kPage;
  if (bytes < 2 * kPage + skip) return;
  ::madvise(reinterpret_cast<void*>(address + skip), (bytes - skip) / kPage * kPage, MADV_HUGEPAGE);
}

// Zeros from the system, in huge pages where it gives them.
class Mapping {
 public:
  static std::shared_ptr<Mapping> Create(size_t bytes) {
    void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();  // as operator new does
    AskForHugePages(memory, bytes);
    return std::shared_ptr<Mapping>(new Mapping(static_cast<uint8_t*>(memory), bytes));
  }
  ~Mapping() { ::munmap(memory_, bytes_); }

  // Null where too little is left.
  uint8_t* Take(size_t bytes) {
    if (bytes > bytes_ - used_) return nullptr;
    uint8_t* const taken = memory_ + used_;
    used_ += RoundUp(bytes, kLine);
    return taken;
  }

 private:
  Mapping(uint8_t* memory, size_t bytes) : memory_(memory), bytes_(bytes) {}
  uint8_t* const memory_;
  const size_t bytes_;
  size_t used_ = 0;
};

// The place of a tensor's bytes and what keeps them.
struct Place {
  uint8_t* bytes;
  std::shared_ptr<Mapping> mapping;
};

Place TakeForStreaming(size_t bytes) {
  constexpr size_t kMapping = 64 << 20;
  static std::mutex mutex;
  static std::weak_ptr<Mapping> latest;
  std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Mapping> mapping = latest.lock();
  uint8_t* taken = mapping == nullptr ? nullptr : mapping->Take(bytes);
  if (taken != nullptr) return {taken, std::move(mapping)};
  // The room of a line: Take rounds up.
  mapping = Mapping::Create(std::max(kMapping, (bytes / kPage + 1) * kPage));
  latest = mapping;
  taken = mapping->Take(bytes);
  return {taken, std::move(mapping)};
}

}  // namespace

std::string ShapeToString(const Shape& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::StatusOr<int64_t> CheckedElements(const Shape& shape) {
  int64_t count = 1;
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0 || (dim > 0 && count > kMaxElements / dim)) {
      return absl::InvalidArgumentError(absl::StrCat("impossible shape ", ShapeToString(shape)));
    }
    empty = empty || dim == 0;
    if (dim > 0) count *= dim;
  }
  return empty ? 0 : count;
}

Tensor::Tensor(DType dtype, Shape shape) : dtype_(dtype), shape_(std::move(shape)) {
  const auto count = CheckedElements(shape_);
  NIBBLE_CHECK(count.ok());
  elements_ = *count;
}

Tensor Tensor::Zeros(DType dtype, Shape shape) {
  Tensor t(dtype, std::move(shape));
  const size_t bytes = RoundUp(std::max<int64_t>(t.byte_size(), 1), kLine);
  if (bytes >= kOwnMapping) {
    std::shared_ptr<Mapping> mapping = Mapping::Create(bytes);
    t.writable_ = mapping->Take(bytes);
    t.owner_ = std::move(mapping);
  } else {
    void* memory = std::aligned_alloc(kLine, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    std::memset(memory, 0, bytes);
    t.owner_ = std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); });
    t.writable_ = static_cast<uint8_t*>(memory);
  }
  t.data_ = t.writable_;
  return t;
}

Tensor Tensor::ZerosForStreaming(DType dtype, Shape shape) {
  Tensor t(dtype, std::move(shape));
  Place place = TakeForStreaming(std::max<size_t>(t.byte_size(), 1));
  t.owner_ = std::move(place.mapping);
  t.writable_ = place.bytes;
  t.data_ = place.bytes;
  return t;
}

Tensor Tensor::FromFloats(Shape shape, absl::Span<const float> values) {
  Tensor t = Zeros(DType::kF32, std::move(shape));
  NIBBLE_CHECK(t.elements() == static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), t.mutable_as<float>().begin());
  return t;
}

absl::StatusOr<Tensor> Tensor::Borrow(DType dtype, Shape shape, absl::Span<const uint8_t> bytes,
                                      std::shared_ptr<const void> owner) {
  Tensor t;
  t.dtype_ = dtype;
  NIBBLE_ASSIGN_OR_RETURN(t.elements_, CheckedElements(shape));
  t.shape_ = std::move(shape);
  if (t.byte_size() != static_cast<int64_t>(bytes.size())) {
    return absl::InvalidArgumentError(absl::StrCat(DTypeName(dtype), " tensor of shape ", ShapeToString(t.shape_), " needs ",
                                                   t.byte_size(), " bytes, got ", bytes.size()));
  }
  t.data_ = bytes.data();
  if (t.data_ == nullptr) return Zeros(dtype, t.shape_);
  t.owner_ = std::move(owner);
  return t;
}

bool IsFloating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
}

namespace {

// One element at a byte address that need not be aligned (mapped files).
template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

}  // namespace

void ReadFloats(const Tensor& tensor, int64_t begin, absl::Span<float> out) {
  const int64_t n = static_cast<int64_t>(out.size());
  NIBBLE_CHECK(begin >= 0 && begin + n <= tensor.elements());
  const uint8_t* p = tensor.bytes().data() + begin * DTypeSize(tensor.dtype());
  switch (tensor.dtype()) {
    case DType::kF32:
      if (n > 0) std::memcpy(out.data(), p, n * sizeof(float));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) out[i] = Bf16ToFloat(Load<uint16_t>(p + 2 * i));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = Fp16ToFloat(Load<uint16_t>(p + 2 * i));
      return;
    case DType::kF64:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(Load<double>(p + 8 * i));
      return;
    default:
      NIBBLE_CHECK(!"a floating-point tensor");
  }
}

std::vector<float> ToFloats(const Tensor& tensor) {
  std::vector<float> values(tensor.elements());
  ReadFloats(tensor, 0, absl::MakeSpan(values));
  return values;
}

Tensor FloatsToDType(DType dtype, Shape shape, absl::Span<const float> values) {
  Tensor t = Tensor::Zeros(dtype, std::move(shape));
  NIBBLE_CHECK(t.elements() == static_cast<int64_t>(values.size()));
  switch (dtype) {
    case DType::kF32:
      std::copy(values.begin(), values.end(), t.mutable_as<float>().begin());
      return t;
    case DType::kBF16:
      std::transform(values.begin(), values.end(), t.mutable_as<uint16_t>().begin(), FloatToBf16);
      return t;
    case DType::kF16:
      std::transform(values.begin(), values.end(), t.mutable_as<uint16_t>().begin(), FloatToFp16);
      return t;
    default:
      NIBBLE_CHECK(!"F32, BF16 or F16");
  }
  return t;
}

}  // namespace nibble
