#include "core/ir/weight_transform.h"

#include <algorithm>
#include <utility>

#include "core/base/status.h"

namespace nibble::ir {
namespace {

constexpr char kTransformFirst[] = "transform the weights before quantizing them";

}  // namespace

absl::StatusOr<std::vector<float>> LoadForTransform(const Parameter& weight) {
  NIBBLE_ASSIGN_OR_RETURN(Parameter::Unquantized loaded, weight.LoadUnquantized(kTransformFirst));
  return std::move(loaded.values);
}

absl::Status ReplaceFloats(Parameter& parameter, absl::Span<const float> values) {
  NIBBLE_ASSIGN_OR_RETURN(EncodedTensor value, WrapFloats(Tensor::FromFloats(parameter.shape(), values)));
  parameter.MarkRewritten();
  return parameter.Replace(std::move(value));
}

absl::Status RestoreFormat(Parameter& parameter, const QuantScheme& scheme, ThreadPool* pool) {
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor value, parameter.Load());
  if (SameScheme(value.scheme, scheme)) return absl::OkStatus();
  return parameter.ReplaceEncoded(scheme, Decode(value), pool);
}

absl::Status TransformRows(Parameter& weight, ThreadPool* pool, absl::FunctionRef<void(absl::Span<double>)> map) {
  NIBBLE_ASSIGN_OR_RETURN(std::vector<float> values, LoadForTransform(weight));
  const int64_t cols = weight.shape().back(), rows = static_cast<int64_t>(values.size()) / cols;
  ForEach(pool, rows, [&](int64_t r) {
    float* at = values.data() + r * cols;
    std::vector<double> row(at, at + cols);
    map(absl::MakeSpan(row));
    std::transform(row.begin(), row.end(), at, [](double v) { return static_cast<float>(v); });
  });
  return ReplaceFloats(weight, values);
}

absl::Status MapValues(Parameter& weight, absl::FunctionRef<double(size_t, size_t, double)> map) {
  NIBBLE_ASSIGN_OR_RETURN(Parameter::Unquantized loaded, weight.LoadUnquantized(kTransformFirst));
  const size_t cols = weight.shape().back();
  bool is_changed = false;  // scales may all be 1
  for (size_t i = 0; i < loaded.values.size(); ++i) {
    const float before = std::exchange(loaded.values[i], static_cast<float>(map(i / cols, i % cols, static_cast<double>(loaded.values[i]))));
    is_changed |= loaded.values[i] != before;
  }
  if (is_changed) weight.MarkRewritten();
  return weight.ReplaceEncoded(loaded.scheme, loaded.values, nullptr);
}

}  // namespace nibble::ir
