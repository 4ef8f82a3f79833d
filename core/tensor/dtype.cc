#include "core/tensor/dtype.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

struct Entry {
  DType dtype;
  absl::string_view name;
  int64_t size;
};
constexpr Entry kEntries[] = {
    {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2}, {DType::kBF16, "BF16", 2}, {DType::kF64, "F64", 8},
    {DType::kI8, "I8", 1},   {DType::kU8, "U8", 1},   {DType::kI16, "I16", 2},   {DType::kI32, "I32", 4},
    {DType::kI64, "I64", 8}, {DType::kBool, "BOOL", 1}};

}  // namespace

int64_t DTypeSize(DType dtype) { return kEntries[static_cast<int>(dtype)].size; }

absl::string_view DTypeName(DType dtype) { return kEntries[static_cast<int>(dtype)].name; }

absl::StatusOr<DType> DTypeFromName(absl::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown element type '", name, "'"));
}

}  // namespace nibble
