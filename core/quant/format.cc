#include "core/quant/format.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/suggest.h"

namespace nibble {
namespace {

std::map<std::string, std::unique_ptr<Format>>& Registry() {
  static auto* registry = new std::map<std::string, std::unique_ptr<Format>>;
  return *registry;
}

}  // namespace

std::string GranularityToString(const QuantScheme& scheme) {
  switch (scheme.per()) {
    case QuantScheme::PER_TENSOR: return "per tensor";
    case QuantScheme::PER_ROW: return "per row";
    case QuantScheme::PER_GROUP: return absl::StrCat("per group of ", scheme.group_size());
    case QuantScheme::PER_TOKEN: return "per token";
  }
  return "";
}

absl::Status ValidateScales(const QuantScheme& scheme) {
  if (scheme.per() == QuantScheme::PER_GROUP && scheme.group_size() < 1) {
    return absl::InvalidArgumentError("per: PER_GROUP needs group_size of 1 or more");
  }
  if (scheme.per() != QuantScheme::PER_GROUP && scheme.has_group_size()) {
    return absl::InvalidArgumentError("group_size is only for per: PER_GROUP");
  }
  if (!(scheme.scale_floor() >= 0)) return absl::InvalidArgumentError("scale_floor must not be negative");
  if (!(scheme.outlier_threshold() >= 0)) return absl::InvalidArgumentError("outlier_threshold must not be negative");
  if (scheme.outlier_threshold() > 0 && scheme.per() != QuantScheme::PER_TOKEN) {
    return absl::InvalidArgumentError("outlier_threshold is for activations with per: PER_TOKEN");
  }
  if (scheme.outlier_columns() && scheme.outlier_threshold() == 0) return absl::InvalidArgumentError("outlier_columns needs an outlier_threshold");
  if (!scheme.has_fixed()) return absl::OkStatus();
  if (scheme.per() != QuantScheme::PER_TENSOR || scheme.has_range() || scheme.dynamic()) {
    return absl::InvalidArgumentError("fixed is a range for all: it needs per: PER_TENSOR, no range rule and not dynamic");
  }
  const float min = scheme.fixed().min(), max = scheme.fixed().max();
  if (!(std::isfinite(min) && std::isfinite(max) && min <= 0 && max >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat("fixed: from ", min, " to ", max, " is no range that holds 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckRowLength(const Format& format, const Shape& shape) {
  if (shape.empty() || shape.back() % format.row_multiple() == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(format.name(), " stores blocks of ", format.row_multiple(), " columns, which do not divide rows of ",
                                                 shape.back(), "; choose another format for this tensor"));
}

std::string FixedRangeToString(const QuantScheme& scheme) {
  return scheme.has_fixed() ? absl::StrFormat(" static [%.4g, %.4g]", scheme.fixed().min(), scheme.fixed().max()) : "";
}

std::string Format::Describe(const QuantScheme& scheme) const { return absl::StrCat(name(), " ", GranularityToString(scheme)); }

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
