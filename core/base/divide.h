// Division of sizes, both positive.
#ifndef NIBBLE_CORE_BASE_DIVIDE_H_
#define NIBBLE_CORE_BASE_DIVIDE_H_

#include <cstdint>

namespace nibble {

constexpr int64_t CeilDiv(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// The smallest multiple of `unit` that holds n.
constexpr int64_t RoundUp(int64_t n, int64_t unit) { return CeilDiv(n, unit) * unit; }

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_DIVIDE_H_
