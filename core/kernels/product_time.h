// How long a linear takes on this machine.
#ifndef NIBBLE_CORE_KERNELS_PRODUCT_TIME_H_
#define NIBBLE_CORE_KERNELS_PRODUCT_TIME_H_

#include "absl/status/statusor.h"
#include "core/kernels/linear.h"

namespace nibble::kernels {

// Seconds of one product with `tokens` random activations, preparing them included: the
// least of `rounds`, each with caches that hold none of the weights, as in a model that
// is larger than they are.
absl::StatusOr<double> ProductSeconds(const Linear& linear, const KernelTable& table, int64_t tokens, int rounds, ThreadPool& pool);

}  // namespace nibble::kernels

#endif  // NIBBLE_CORE_KERNELS_PRODUCT_TIME_H_
