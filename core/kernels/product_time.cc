#include "core/kernels/product_time.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "core/base/rng.h"
#include "core/base/status.h"

namespace nibble::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// Read between rounds: more than any last-level cache slice that a core fills.
constexpr int64_t kEvictionFloats = int64_t{16} << 20;

float Evict(const KernelTable& table, const std::vector<float>& other) { return table.probes.sum(other.data(), static_cast<int64_t>(other.size())); }

}  // namespace

absl::StatusOr<double> ProductSeconds(const Linear& linear, const KernelTable& table, int64_t tokens, int rounds, ThreadPool& pool) {
  static const std::vector<float>& other = *new std::vector<float>(kEvictionFloats, 1.0f);
  Rng rng(1);
  std::vector<float> x(tokens * linear.cols()), y(tokens * linear.rows());
  for (float& v : x) v = static_cast<float>(rng.Normal());
  PreparedInput input;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < rounds + 1; ++i) {  // the first also maps memory
    if (Evict(table, other) < 0) return absl::InternalError("a sum of ones is negative");
    const Clock::time_point start = Clock::now();
    NIBBLE_RETURN_IF_ERROR(input.Prepare(linear.input_form(), table, x.data(), tokens, pool));
    NIBBLE_RETURN_IF_ERROR(linear.Multiply(input, y.data(), linear.rows(), pool));
    if (i > 0) best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace nibble::kernels
