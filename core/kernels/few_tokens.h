#ifndef NIBBLE_CORE_KERNELS_FEW_TOKENS_H_
#define NIBBLE_CORE_KERNELS_FEW_TOKENS_H_

#include <cstdint>

namespace nibble::kernels {

// Up to this many tokens a float product reads the stored weights directly;
// more are worth decoding panels of weights to fp32.
inline constexpr int64_t kFewTokens = 16;

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_FEW_TOKENS_H_
