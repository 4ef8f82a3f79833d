#include "methods/autoquant/chooser.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ir/passes.h"
#include "core/kernels/product_time.h"
#include "methods/autoquant/candidates.h"
#include "methods/encode_ops.h"

namespace nibble {

ProductTimer MeasuringTimer(int rounds, train::Machine machine) {
  return [rounds, machine](const std::string&, const kernels::Linear& linear, int64_t tokens) {
    return kernels::ProductSeconds(linear, machine.table, tokens, rounds, machine.pool);
  };
}

absl::StatusOr<SchemeChooser> SchemeChooser::Create(const AutoquantOptions& options, Context& context, train::Machine machine, ProductTimer timer) {
  std::vector<Candidate> candidates(options.candidate().begin(), options.candidate().end());
  if (candidates.empty()) {
    NIBBLE_ASSIGN_OR_RETURN(candidates, NativeCandidates(machine.table));
  }
  return SchemeChooser(options, std::move(candidates), context, machine, std::move(timer));
}

SchemeChooser::SchemeChooser(const AutoquantOptions& options, std::vector<Candidate> candidates, Context& context, train::Machine machine,
                             ProductTimer timer)
    : options_(options), candidates_(std::move(candidates)), context_(context), machine_(machine), timer_(std::move(timer)) {}

// Candidates are tried in the order of preference, so most are never encoded for a linear.
absl::Status SchemeChooser::ChooseLinear(size_t op, const std::vector<float>& x, ir::Graph& graph) {
  ir::Parameter& parameter = graph.mutable_parameter(*graph.ops()[op].weight);
  NIBBLE_ASSIGN_OR_RETURN(const ir::Parameter::Unquantized weight, parameter.LoadUnquantized(kOneMethodALayer));
  const int64_t rows = parameter.shape()[0], cols = parameter.shape()[1], tokens = static_cast<int64_t>(x.size()) / cols;
  std::vector<float> exact(tokens * rows);
  train::Multiply(machine_, {false, true, tokens, rows, cols}, x.data(), weight.values.data(), false, exact.data());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Offer> offers, FasterCandidates(parameter, weight));
  for (const Offer& offer : offers) {
    const Candidate& candidate = *offer.candidate;
    NIBBLE_ASSIGN_OR_RETURN(EncodedTensor encoded, EncodeAs(candidate, parameter, weight));
    NIBBLE_ASSIGN_OR_RETURN(const double error, ErrorOf(candidate, encoded, x, exact));
    if (!(error <= options_.max_error())) continue;
    Count(candidate.name(), error);
    NIBBLE_RETURN_IF_ERROR(parameter.Replace(std::move(encoded)));
    return candidate.has_activation() ? ir::AttachActivation(graph, {op}, candidate.activation()) : absl::OkStatus();
  }
  Count(kUnchanged, 0);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SchemeChooser::Offer>> SchemeChooser::FasterCandidates(const ir::Parameter& parameter,
                                                                                  const ir::Parameter::Unquantized& weight) {
  const Shape& shape = parameter.shape();
  const std::string unchanged = absl::StrCat(kUnchanged, ", ", weight.scheme.format());
  NIBBLE_ASSIGN_OR_RETURN(const Times as_it_is, TimesOf(shape, unchanged, std::nullopt, [&] { return parameter.Load(); }));
  std::vector<Offer> offers;
  for (const Candidate& candidate : candidates_) {
    if (options_.candidate().empty() && !SuitsRows(candidate.weight(), shape[1], weight.scheme)) continue;
    const auto encode = [&] { return EncodeAs(candidate, parameter, weight); };
    NIBBLE_ASSIGN_OR_RETURN(const Times times, TimesOf(shape, candidate.name(), ActivationOf(candidate), encode));
    NIBBLE_ASSIGN_OR_RETURN(const int64_t bytes, EncodedBytes(candidate.weight(), shape));
    if (times.mix < as_it_is.mix) offers.push_back({&candidate, times.mix, bytes});
  }
  std::stable_sort(offers.begin(), offers.end(),
                   [](const Offer& a, const Offer& b) { return std::tie(a.seconds, a.bytes) < std::tie(b.seconds, b.bytes); });
  return offers;
}

absl::StatusOr<SchemeChooser::Times> SchemeChooser::TimesOf(const Shape& shape, const std::string& name, const std::optional<QuantScheme>& activation,
                                                            absl::FunctionRef<absl::StatusOr<EncodedTensor>()> encode) {
  const Key key{shape[0], shape[1], name};
  if (const auto it = times_.find(key); it != times_.end()) return it->second;
  NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor weight, encode());
  NIBBLE_ASSIGN_OR_RETURN(const auto linear, kernels::Linear::Create(weight, activation, machine_.table));
  Times times;
  if (linear->arithmetic() == kernels::Arithmetic::kNative) {
    NIBBLE_ASSIGN_OR_RETURN(times, Time(name, *linear));
  }
  return times_[key] = times;
}

absl::StatusOr<SchemeChooser::Times> SchemeChooser::Time(const std::string& name, const kernels::Linear& linear) const {
  Times times;
  if (options_.prompt() > 0) {
    NIBBLE_ASSIGN_OR_RETURN(times.prompt, timer_(name, linear, options_.prompt()));
  }
  if (options_.reply() > 0) {
    NIBBLE_ASSIGN_OR_RETURN(times.step, timer_(name, linear, options_.batch()));
  }
  times.mix = options_.batch() * times.prompt + options_.reply() * times.step;
  return times;
}

absl::StatusOr<EncodedTensor> SchemeChooser::EncodeAs(const Candidate& candidate, const ir::Parameter& parameter,
                                                      const ir::Parameter::Unquantized& weight) const {
  auto encoded = Encode(candidate.weight(), parameter.shape(), weight.values, &context_.pool());
  if (!encoded.ok()) return Annotate(encoded.status(), absl::StrCat(parameter.name(), ", candidate ", candidate.name()));
  return encoded;
}

absl::StatusOr<double> SchemeChooser::ErrorOf(const Candidate& candidate, const EncodedTensor& weight, const std::vector<float>& x,
                                              const std::vector<float>& exact) const {
  NIBBLE_ASSIGN_OR_RETURN(const auto linear, kernels::Linear::Create(weight, ActivationOf(candidate), machine_.table));
  const int64_t tokens = static_cast<int64_t>(x.size()) / linear->cols();
  kernels::PreparedInput input;
  std::vector<float> y(exact.size());
  NIBBLE_RETURN_IF_ERROR(input.Prepare(linear->input_form(), machine_.table, x.data(), tokens, machine_.pool));
  NIBBLE_RETURN_IF_ERROR(linear->Multiply(input, y.data(), linear->rows(), machine_.pool));
  double error = 0, size = 0;
  for (size_t i = 0; i < y.size(); ++i) error += std::pow(y[i] - exact[i], 2), size += std::pow(exact[i], 2);
  return size == 0 ? 0.0 : std::sqrt(error / size);
}

void SchemeChooser::Count(const std::string& name, double error) {
  Choice& choice = chosen_[name];
  ++choice.count;
  choice.error = std::max(choice.error, error);
}

void SchemeChooser::Report() const {
  ReportTable times{"autoquant: milliseconds of a linear on this machine, the least of the rounds",
                    {"rows x columns", "scheme", absl::StrCat("prompt of ", options_.prompt()), absl::StrCat("reply, batch ", options_.batch()),
                     "the mix"},
                    {}};
  std::vector<std::pair<Key, Times>> rows(times_.begin(), times_.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first.rows, a.first.cols, a.second.mix) < std::tie(b.first.rows, b.first.cols, b.second.mix);
  });
  for (const auto& [key, t] : rows) {
    const bool timed = std::isfinite(t.mix);
    const auto cell = [timed](double seconds) { return timed ? absl::StrFormat("%.3f", 1e3 * seconds) : std::string("simulated"); };
    times.rows.push_back({absl::StrCat(key.rows, " x ", key.cols), key.name, cell(t.prompt), cell(t.step), cell(t.mix)});
  }
  ReportTable chosen{absl::StrFormat("autoquant: what linears became, errors up to %g allowed", options_.max_error()),
                     {"scheme", "linears", "largest error"},
                     {}};
  for (const auto& [name, choice] : chosen_) chosen.rows.push_back({name, absl::StrCat(choice.count), absl::StrFormat("%.4f", choice.error)});
  context_.AddTable(std::move(times));
  context_.AddTable(std::move(chosen));
}

}  // namespace nibble
