#include <cstdio>

#include "tools/command.h"

namespace nibble::tools {

void PrintEvents(const std::map<std::string, CountedEvent>& events) {
  for (const auto& [what, event] : events) {
    std::printf("event %s: %lld (%s)\n", what.c_str(), static_cast<long long>(event.count), event.detail.c_str());
  }
}

}  // namespace nibble::tools
