#include "core/base/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

// Of control groups, version 2 and 1. "max", or a number beyond any memory, is no limit.
constexpr const char* kGroupLimits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};

std::string TextOf(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int64_t> GroupLimit() {
  std::optional<int64_t> least;
  for (const char* path : kGroupLimits) {
    int64_t bytes = 0;
    if (absl::SimpleAtoi(TextOf(path), &bytes) && bytes > 0) least = std::min(least.value_or(bytes), bytes);
  }
  return least;
}

}  // namespace

absl::StatusOr<int64_t> ParseMemoryField(absl::string_view meminfo, absl::string_view field) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, field) || !absl::ConsumePrefix(&line, ":")) continue;
    int64_t kib = 0;
    if (!absl::ConsumeSuffix(&line, " kB") || !absl::SimpleAtoi(line, &kib) || kib < 1) {
      return absl::InvalidArgumentError(absl::StrCat("cannot read '", field, ":", line, "'"));
    }
    return kib * 1024;
  }
  return absl::NotFoundError(absl::StrCat("no ", field, " field"));
}

int64_t MemoryLimit() {
  static const int64_t limit = [] {
    const int64_t machine = ParseMemoryField(TextOf("/proc/meminfo"), "MemTotal").value_or(std::numeric_limits<int64_t>::max());
    return std::min(machine, GroupLimit().value_or(machine));
  }();
  return limit;
}

int64_t AvailableMemory() {
  const int64_t machine = ParseMemoryField(TextOf("/proc/meminfo"), "MemAvailable").value_or(MemoryLimit());
  return std::min(machine, MemoryLimit());
}

absl::Status CheckMemory(absl::string_view what, double bytes, absl::string_view advice, int64_t limit) {
  if (bytes <= static_cast<double>(limit)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat("%s takes %.1f GiB, more than the %.1f GiB of this machine; %s", what, bytes / 0x1.0p30,
                                                      static_cast<double>(limit) / 0x1.0p30, advice));
}

}  // namespace nibble
