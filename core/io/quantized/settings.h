// Settings of a quantization_config: values of one JSON object, null counting as
// absent. A value of another kind is an error that names the key.
#ifndef NIBBLE_CORE_IO_QUANTIZED_SETTINGS_H_
#define NIBBLE_CORE_IO_QUANTIZED_SETTINGS_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace nibble::io {

class Settings {
 public:
  explicit Settings(const nlohmann::json& object, std::string where = "quantization_config")
      : object_(object), where_(std::move(where)) {}

  // Null where the key is absent.
  const nlohmann::json* Find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::StatusOr<int64_t> Integer(const char* key, int64_t otherwise) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return otherwise;
    const bool wraps = value->is_number_unsigned() && value->get<uint64_t>() > (uint64_t{1} << 31);
    if (!value->is_number_integer() || wraps || value->get<int64_t>() < -1) {
      return Bad(key, "an integer");
    }
    return value->get<int64_t>();
  }

  absl::StatusOr<bool> Bool(const char* key, bool otherwise) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) return Bad(key, "true or false");
    return value->get<bool>();
  }

  absl::StatusOr<double> Number(const char* key, double otherwise) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) return Bad(key, "a number");
    return value->get<double>();
  }

  absl::StatusOr<std::string> Text(const char* key, const std::string& otherwise) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) return Bad(key, "a text");
    return value->get<std::string>();
  }

  absl::Status Bad(const char* key, const std::string& expected) const {
    const nlohmann::json* value = Find(key);
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", key, " is ", value == nullptr ? "missing" : Dump(*value), ", expected ", expected));
  }

  static std::string Dump(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 200);
  }

  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& object_;
  const std::string where_;
};

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_QUANTIZED_SETTINGS_H_
