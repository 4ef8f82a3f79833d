// How much memory there is, and an error in place of a process that the kernel kills.
#ifndef NIBBLE_CORE_BASE_MEMORY_H_
#define NIBBLE_CORE_BASE_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Bytes that this process may have resident: the machine's memory, or its control group's
// limit where that is lower. The largest int64 where neither can be read.
int64_t MemoryLimit();

// Of these, what is free now or can be freed at once: it changes as programs run.
int64_t AvailableMemory();

// A field of the text of /proc/meminfo ("MemTotal"), in bytes.
absl::StatusOr<int64_t> ParseMemoryField(absl::string_view meminfo, absl::string_view field);

// ResourceExhausted where `what` needs more bytes than `limit`: "WHAT takes 12.5 GiB, more
// than the 8.0 GiB of this machine; ADVICE".
absl::Status CheckMemory(absl::string_view what, double bytes, absl::string_view advice, int64_t limit = MemoryLimit());

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_MEMORY_H_
