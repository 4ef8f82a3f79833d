#include "core/quant/format.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#include "core/base/suggest.h"

namespace nibble {
namespace {

std::map<std::string, std::unique_ptr<Format>>& Registry() {
  static auto* registry = new std::map<std::string, std::unique_ptr<Format>>;
  return *registry;
}

}  // namespace

absl::StatusOr<const Format*> FindFormat(const std::string& name) {
  const auto it = Registry().find(name);
  if (it == Registry().end()) return absl::NotFoundError(UnknownName("number format", name, FormatNames()));
  return it->second.get();
}

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (const auto& [name, format] : Registry()) names.push_back(name);
  return names;
}

FormatRegistrar::FormatRegistrar(std::unique_ptr<Format> format) {
  const std::string name = format->name();
  if (!Registry().emplace(name, std::move(format)).second) {
    std::fprintf(stderr, "number format '%s' is registered twice\n", name.c_str());
    std::abort();
  }
}

}  // namespace nibble
