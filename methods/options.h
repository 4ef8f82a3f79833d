// Options that several methods read alike.
#ifndef NIBBLE_METHODS_OPTIONS_H_
#define NIBBLE_METHODS_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/status.h"
#include "core/ir/graph.h"
#include "core/quant/format.h"
#include "google/protobuf/repeated_field.h"

namespace nibble {

// "int2" … "int8", the registered integer formats. Error: other bits.
absl::StatusOr<std::string> IntegerFormat(int bits);

// The integer scheme of weights that options name by bits, group_size (0: a
// scale a row), asymmetric, divisor, range and scale_type. ValidateScheme judges
// it.
template <typename Options>
absl::StatusOr<QuantScheme> WeightSchemeFrom(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(IntegerFormat(options.bits()).status());
  QuantScheme scheme = IntegerScheme(options.bits(), options.group_size(), options.asymmetric());
  if (options.has_divisor()) scheme.set_divisor(options.divisor());
  if (options.has_range()) *scheme.mutable_range() = options.range();
  if (options.has_scale_type()) scheme.set_scale_type(options.scale_type());
  return scheme;
}

// The linears that a step's `layers` select, for methods that go through blocks: an
// embedding, head or adapter among them is an error.
absl::StatusOr<std::vector<size_t>> SelectBlockLinears(const ir::Graph& graph, const google::protobuf::RepeatedPtrField<std::string>& layers);

// Those of `ops` that are among `selected`, in order.
std::vector<size_t> SelectedOf(const std::vector<size_t>& ops, const std::vector<size_t>& selected);

// A step's `layers`, or the blocks' linears where it names none.
std::vector<std::string> LayersOrBlocks(const google::protobuf::RepeatedPtrField<std::string>& layers);

}  // namespace nibble

#endif  // NIBBLE_METHODS_OPTIONS_H_
