// Scales as they are stored.
#ifndef NIBBLE_CORE_QUANT_SCALE_TYPE_H_
#define NIBBLE_CORE_QUANT_SCALE_TYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "core/quant/scheme.pb.h"
#include "core/tensor/tensor.h"

namespace nibble {

DType ScaleDType(QuantScheme::ScaleType type);

// "fp32", "fp16", "bf16".
absl::string_view ScaleTypeName(QuantScheme::ScaleType type);

// The value that the type holds; infinite beyond its range.
float RoundToScaleType(QuantScheme::ScaleType type, float value);

// The least scale that the type can hold as a normal number.
float ScaleTypeFloor(QuantScheme::ScaleType type);

// Sets element i of a writable tensor of a scale's type.
void StoreScale(float scale, int64_t i, Tensor* scales);

}  // namespace nibble

#endif  // NIBBLE_CORE_QUANT_SCALE_TYPE_H_
