#include "core/quant/scale_type.h"

#include <limits>

#include "core/tensor/half.h"

namespace nibble {

DType ScaleDType(QuantScheme::ScaleType type) {
  switch (type) {
    case QuantScheme::FP16: return DType::kF16;
    case QuantScheme::BF16: return DType::kBF16;
    default: return DType::kF32;
  }
}

absl::string_view ScaleTypeName(QuantScheme::ScaleType type) {
  static constexpr absl::string_view kNames[] = {"fp32", "fp16", "bf16"};
  return kNames[type];
}

float RoundToScaleType(QuantScheme::ScaleType type, float value) {
  switch (type) {
    case QuantScheme::FP16: return Fp16ToFloat(FloatToFp16(value));
    case QuantScheme::BF16: return Bf16ToFloat(FloatToBf16(value));
    default: return value;
  }
}

float ScaleTypeFloor(QuantScheme::ScaleType type) {
  return type == QuantScheme::FP16 ? 0x1.0p-14f : std::numeric_limits<float>::min();
}

void StoreScale(float scale, int64_t i, Tensor* scales) {
  switch (scales->dtype()) {
    case DType::kF16: scales->mutable_as<uint16_t>()[i] = FloatToFp16(scale); break;
    case DType::kBF16: scales->mutable_as<uint16_t>()[i] = FloatToBf16(scale); break;
    default: scales->mutable_as<float>()[i] = scale;
  }
}

}  // namespace nibble
