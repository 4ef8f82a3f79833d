// Early return on absl::Status and absl::StatusOr.
#ifndef NIBBLE_CORE_BASE_STATUS_H_
#define NIBBLE_CORE_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#define NIBBLE_CONCAT_INNER_(a, b) a##b
#define NIBBLE_CONCAT_(a, b) NIBBLE_CONCAT_INNER_(a, b)

// Returns from the enclosing function when `expr` is an error.
#define NIBBLE_RETURN_IF_ERROR(expr)                   \
  do {                                                 \
    absl::Status nibble_status_ = (expr);              \
    if (!nibble_status_.ok()) return nibble_status_;   \
  } while (false)

// Assigns the value of the StatusOr `expr` to `lhs`, or returns its error.
#define NIBBLE_ASSIGN_OR_RETURN(lhs, expr) \
  NIBBLE_ASSIGN_OR_RETURN_IMPL_(NIBBLE_CONCAT_(nibble_or_, __LINE__), lhs, expr)
#define NIBBLE_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return tmp.status();                 \
  lhs = std::move(tmp).value()

namespace nibble {

// `status` with `context` and ": " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_STATUS_H_
