#include "methods/autoquant/candidates.h"

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/divide.h"
#include "core/base/status.h"
#include "core/kernels/linear.h"
#include "core/kernels/pack.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

using Candidate = AutoquantOptions::Candidate;

constexpr int kGroupSizes[] = {32, 128};
constexpr int64_t kProbeColumns = 256;

// The format's examples, its groups in the sizes above. Left out: range rules, which choose
// other scales for the same product; what is not encoded row by row, which kernels see as
// rows (one scale for the tensor, scales of scales) or which is fitted, not rounded
// (codebooks); floats but bf16.
std::vector<QuantScheme> SchemesOf(const Format& format) {
  std::vector<QuantScheme> schemes;
  for (QuantScheme scheme : format.ExampleSchemes()) {
    if (scheme.has_range() || !format.encodes_rows_alone(scheme)) continue;
    if (IsFloatFormat(scheme) && scheme.format() != "bf16") continue;
    if (scheme.per() != QuantScheme::PER_GROUP) {
      schemes.push_back(scheme);
      continue;
    }
    for (const int size : kGroupSizes) {
      scheme.set_group_size(size);
      schemes.push_back(scheme);
    }
  }
  return schemes;
}

// One row, as what runs natively depends on the scheme alone.
absl::StatusOr<EncodedTensor> Probe(const QuantScheme& scheme, const Format& format) {
  std::vector<float> ramp(RoundUp(kProbeColumns, format.row_multiple()));
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(i) - static_cast<float>(ramp.size()) / 2;
  return Encode(scheme, {1, static_cast<int64_t>(ramp.size())}, ramp);
}

// Codes of other widths are packed as the next that does: no faster, and with more error.
bool FillsContainer(const Format& format, const EncodedTensor& weight) {
  const std::optional<CodeView> codes = format.Codes(weight);
  return !codes.has_value() || kernels::ContainerBits(codes->bits) == codes->bits;
}

Candidate MakeCandidate(const QuantScheme& weight, bool int8_activations) {
  Candidate candidate;
  candidate.set_name(absl::StrCat(SchemeToString(weight), int8_activations ? "; int8 activations" : ""));
  *candidate.mutable_weight() = weight;
  if (int8_activations) *candidate.mutable_activation() = TokenScheme(8, true);
  return candidate;
}

}  // namespace

std::optional<QuantScheme> ActivationOf(const Candidate& candidate) {
  return candidate.has_activation() ? std::optional<QuantScheme>(candidate.activation()) : std::nullopt;
}

absl::StatusOr<std::vector<Candidate>> NativeCandidates(const kernels::KernelTable& table) {
  std::vector<Candidate> candidates;
  std::set<std::string> names;
  for (const std::string& name : FormatNames()) {
    NIBBLE_ASSIGN_OR_RETURN(const Format* format, FindFormat(name));
    for (const QuantScheme& scheme : SchemesOf(*format)) {
      NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor probe, Probe(scheme, *format));
      if (!FillsContainer(*format, probe)) continue;
      for (const bool int8_activations : {false, true}) {
        Candidate candidate = MakeCandidate(scheme, int8_activations);
        NIBBLE_ASSIGN_OR_RETURN(const auto linear, kernels::Linear::Create(probe, ActivationOf(candidate), table));
        if (linear->arithmetic() != kernels::Arithmetic::kNative || !names.insert(candidate.name()).second) continue;
        candidates.push_back(std::move(candidate));
      }
    }
  }
  return candidates;
}

bool SuitsRows(const QuantScheme& scheme, int64_t cols, const QuantScheme& source) {
  if (IsFloatFormat(scheme)) return source.format() == "fp32";
  const int64_t group = scheme.group_size();
  if (scheme.per() == QuantScheme::PER_GROUP && (cols <= group || cols % group != 0)) return false;
  const auto format = FindFormat(scheme.format());
  return format.ok() && cols % (*format)->row_multiple() == 0;
}

}  // namespace nibble
