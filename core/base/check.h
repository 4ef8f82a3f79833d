// NIBBLE_CHECK ends the process with file, line and message. It is for our own
// bugs only: whatever a user or a file can cause is an absl::Status.
#ifndef NIBBLE_CORE_BASE_CHECK_H_
#define NIBBLE_CORE_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define NIBBLE_CHECK(cond)                                                        \
  do {                                                                            \
    if (!(cond)) {                                                                \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #cond); \
      std::abort();                                                               \
    }                                                                             \
  } while (false)

#define NIBBLE_CHECK_OK(expr)                                                     \
  do {                                                                            \
    const auto nibble_check_status_ = (expr);                                     \
    if (!nibble_check_status_.ok()) {                                             \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,                     \
                   std::string(nibble_check_status_.message()).c_str());          \
      std::abort();                                                               \
    }                                                                             \
  } while (false)

#endif  // NIBBLE_CORE_BASE_CHECK_H_
