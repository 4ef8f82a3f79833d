// Helpers for tests: EXPECT_OK, temporary folders, and the optional folder of
// shared reference data that some tests compare with.
#ifndef NIBBLE_CORE_BASE_TESTING_H_
#define NIBBLE_CORE_BASE_TESTING_H_

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {

inline absl::Status ToStatus(const absl::Status& status) { return status; }
template <typename T>
absl::Status ToStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

#define EXPECT_OK(expr)                                    \
  do {                                                     \
    const absl::Status nibble_s_ = ::nibble::ToStatus(expr); \
    EXPECT_TRUE(nibble_s_.ok()) << nibble_s_.ToString();   \
  } while (false)
#define ASSERT_OK(expr)                                    \
  do {                                                     \
    const absl::Status nibble_s_ = ::nibble::ToStatus(expr); \
    ASSERT_TRUE(nibble_s_.ok()) << nibble_s_.ToString();   \
  } while (false)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL_(NIBBLE_CONCAT_(nibble_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL_(tmp, lhs, expr)    \
  auto tmp = (expr);                                  \
  ASSERT_TRUE(tmp.ok()) << tmp.status().ToString();   \
  lhs = std::move(tmp).value()

// A fresh folder for the running test.
inline std::string TestTempDir() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string name = absl::StrCat(info->test_suite_name(), "_", info->name());
  for (char& c : name) if (c == '/') c = '_';
  const std::string dir = absl::StrCat(::testing::TempDir(), "/", name);
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  return dir;
}

// $NIBBLE_SHARED (reference data, not part of the project), or "".
inline std::string SharedDir() {
  const char* dir = std::getenv("NIBBLE_SHARED");
  return dir != nullptr && std::filesystem::is_directory(dir) ? dir : "";
}

// Skips the running test, and says so, where the shared data is absent.
#define NIBBLE_REQUIRE_SHARED()                                                      \
  if (::nibble::SharedDir().empty())                                                 \
  GTEST_SKIP() << "needs the shared reference data: set NIBBLE_SHARED to its folder"

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_TESTING_H_
