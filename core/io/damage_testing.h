// For tests of readers: every truncation of a file and seeded random damage.
#ifndef NIBBLE_CORE_IO_DAMAGE_TESTING_H_
#define NIBBLE_CORE_IO_DAMAGE_TESTING_H_

#include <cstring>
#include <fstream>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "core/base/rng.h"

namespace nibble::io {

// Without the fsync of WriteFile, which thousands of small files cannot afford.
inline void WriteQuickly(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Calls `read` with the file at `path` cut to every length below its own.
inline void ForEachTruncation(const std::string& path, const std::string& bytes, const std::function<void(size_t)>& read) {
  for (size_t length = 0; length < bytes.size(); ++length) {
    WriteQuickly(path, absl::string_view(bytes).substr(0, length));
    read(length);
  }
}

// `bytes` (not empty) with one to three changes in the first `reach` of them: single
// bytes, and 4- and 8-byte words that look like sizes.
inline std::string Damaged(const std::string& bytes, size_t reach, Rng* rng) {
  static constexpr uint64_t kSizes[] = {0, 1, 255, 0x7FFFFFFF, 0xFFFFFFFF, uint64_t{1} << 40, uint64_t{1} << 63, ~uint64_t{0}};
  std::string damaged = bytes;
  for (uint64_t changes = 1 + rng->Below(3); changes > 0; --changes) {
    const uint64_t at = rng->Below(reach), kind = rng->Below(4), size = kSizes[rng->Below(8)];
    if (kind < 2 || at + 8 > damaged.size()) damaged[at] = static_cast<char>(rng->Next());
    else std::memcpy(&damaged[at], &size, kind == 2 ? 4 : 8);
  }
  return damaged;
}

// Calls `read` after each of 2,000 such changes of the file at `path`.
inline void ForEachMutation(const std::string& path, const std::string& bytes, size_t reach,
                            const std::function<void()>& read) {
  Rng rng(20240601);
  for (int i = 0; i < 2000; ++i) {
    WriteQuickly(path, Damaged(bytes, reach, &rng));
    read();
  }
}

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_DAMAGE_TESTING_H_
