// Access to golden tensors: inputs stored with the outputs that independent
// implementations gave for them, $NIBBLE_SHARED/golden/*.safetensors.
#ifndef NIBBLE_CORE_GOLDEN_GOLDEN_TESTING_H_
#define NIBBLE_CORE_GOLDEN_GOLDEN_TESTING_H_

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "core/base/testing.h"
#include "core/io/safetensors.h"
#include "core/tensor/tensor.h"

namespace nibble {

// A test on one golden file; skipped where the shared data is absent.
class GoldenTest : public ::testing::Test {
 protected:
  explicit GoldenTest(std::string file_name) : file_name_(std::move(file_name)) {}

  void SetUp() override {
    NIBBLE_REQUIRE_SHARED();
    ASSERT_OK_AND_ASSIGN(file_, io::SafetensorsFile::Open(absl::StrCat(SharedDir(), "/golden/", file_name_)));
  }

  // Ends the program when the file has no such tensor.
  Tensor Golden(const std::string& name) const { return io::Aligned(file_->Get(name).value()); }

 private:
  const std::string file_name_;
  std::shared_ptr<const io::SafetensorsFile> file_;
};

// The largest difference; infinite for a NaN or for sizes that disagree.
inline double MaxError(absl::Span<const float> got, absl::Span<const double> expected) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(got[i] - expected[i]);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
  }
  return worst;
}

}  // namespace nibble

#endif  // NIBBLE_CORE_GOLDEN_GOLDEN_TESTING_H_
