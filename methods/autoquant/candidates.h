// What autoquant chooses from where its options name no candidates.
#ifndef NIBBLE_METHODS_AUTOQUANT_CANDIDATES_H_
#define NIBBLE_METHODS_AUTOQUANT_CANDIDATES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "core/kernels/kernel_table.h"
#include "methods/autoquant/autoquant.pb.h"

namespace nibble {

// The weight schemes of every registered format that `table` multiplies as they are stored,
// each with float activations and with int8 ones by token, where those run so too. Of schemes
// that kernels see as the same product one is there: the one with the least error.
absl::StatusOr<std::vector<AutoquantOptions::Candidate>> NativeCandidates(const kernels::KernelTable& table);

// nullopt: floating point.
std::optional<QuantScheme> ActivationOf(const AutoquantOptions::Candidate& candidate);

// Whether one of them is of use to rows of `cols` columns that are stored as `source`: its
// blocks or groups divide them, a row has more than one group (else PER_ROW is the same), and
// a float format is smaller than the source.
bool SuitsRows(const QuantScheme& scheme, int64_t cols, const QuantScheme& source);

}  // namespace nibble

#endif  // NIBBLE_METHODS_AUTOQUANT_CANDIDATES_H_
