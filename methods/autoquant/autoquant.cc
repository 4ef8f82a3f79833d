// autoquant: for each linear the fastest scheme on this machine whose error stays
// within a bound. As torchao's autoquant, which compares kernels per shape, but with a
// bound on what the choice costs.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/calibration/block_runner.h"
#include "core/ir/passes.h"
#include "core/kernels/product_time.h"
#include "methods/autoquant/autoquant.pb.h"
#include "methods/encode_ops.h"
#include "methods/method.h"
#include "methods/options.h"
#include "methods/training/training.h"

namespace nibble {
namespace {

using Candidate = AutoquantOptions::Candidate;
using calibration::Batch;
using calibration::BlockRunner;

constexpr char kUnchanged[] = "unchanged";

Candidate MakeCandidate(const std::string& name, const QuantScheme& weight, bool int8_activations) {
  Candidate candidate;
  candidate.set_name(name);
  *candidate.mutable_weight() = weight;
  if (int8_activations) *candidate.mutable_activation() = TokenScheme(8, true);
  return candidate;
}

std::vector<Candidate> CandidatesOf(const AutoquantOptions& options) {
  if (options.candidate_size() > 0) return {options.candidate().begin(), options.candidate().end()};
  std::vector<Candidate> candidates;
  for (const bool activations : {false, true}) {
    const char* suffix = activations ? "_a8" : "";
    candidates.push_back(MakeCandidate(absl::StrCat("w8", suffix), IntegerScheme(8, 0, false), activations));
    candidates.push_back(MakeCandidate(absl::StrCat("w4g32", suffix), IntegerScheme(4, 32, false), activations));
    candidates.push_back(MakeCandidate(absl::StrCat("w4g128", suffix), IntegerScheme(4, 128, false), activations));
  }
  QuantScheme nf4;
  nf4.set_format("nf4");
  nf4.set_per(QuantScheme::PER_GROUP);
  nf4.set_group_size(64);
  candidates.push_back(MakeCandidate("nf4", nf4, false));
  return candidates;
}

absl::Status Check(const AutoquantOptions& options) {
  const auto error = [](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  NIBBLE_RETURN_IF_ERROR(CheckCalibration(options, "autoquant"));
  if (!(options.max_error() > 0)) return error("max_error: ", options.max_error(), " must be above 0");
  if (options.positions() < 1) return error("positions: ", options.positions(), " must be 1 or more");
  if (options.prompt() < 0 || options.reply() < 0 || options.prompt() + options.reply() < 1) {
    return error("prompt: ", options.prompt(), ", reply: ", options.reply(), " are no mix of tokens");
  }
  if (options.batch() < 1) return error("batch: ", options.batch(), " must be 1 or more");
  if (options.rounds() < 1) return error("rounds: ", options.rounds(), " must be 1 or more");
  std::set<std::string> names = {kUnchanged};
  for (const Candidate& candidate : options.candidate()) {
    if (!names.insert(candidate.name()).second || candidate.name().empty()) {
      return error("candidate: the name '", candidate.name(), "' is empty or taken");
    }
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(candidate.weight()), absl::StrCat("candidate ", candidate.name())));
    if (!candidate.has_activation()) continue;
    NIBBLE_RETURN_IF_ERROR(Annotate(ValidateScheme(candidate.activation()), absl::StrCat("candidate ", candidate.name(), " activation")));
    // Others run simulated, so that they would never be chosen.
    if (candidate.activation().per() != QuantScheme::PER_TOKEN) {
      return error("candidate ", candidate.name(), " activation: per: ", QuantScheme::Granularity_Name(candidate.activation().per()), ", expected PER_TOKEN");
    }
  }
  return absl::OkStatus();
}

// Seconds of one shape under one candidate.
struct Times {
  double prompt = 0, reply = 0;  // the whole prompt; one token of each reply
};

// What a linear can become.
struct Trial {
  EncodedTensor weight;
  std::unique_ptr<kernels::Linear> linear;
  double seconds = 0;  // of the mix of tokens
  double error = 0;
};

// At most `count` rows of what each linear of a block reads, in the order of positions.
class InputSamples {
 public:
  // `total`: tokens of all batches, of which positions are drawn, no one twice.
  InputSamples(int64_t count, int64_t total, uint64_t seed) {
    Rng rng(seed);
    // Each token with the probability that leaves `count` of them.
    for (int64_t t = 0; t < total; ++t) {
      const int64_t wanted = count - static_cast<int64_t>(positions_.size());
      if (static_cast<int64_t>(rng.Below(total - t)) < wanted) positions_.push_back(t);
    }
  }

  // `begin`: the place of x's first token among those of all batches.
  void Add(size_t op, int64_t begin, absl::Span<const float> x, int64_t width) {
    std::vector<float>& rows = rows_[op];
    const int64_t end = begin + static_cast<int64_t>(x.size()) / width;
    for (auto t = std::lower_bound(positions_.begin(), positions_.end(), begin); t != positions_.end() && *t < end; ++t) {
      rows.insert(rows.end(), x.begin() + (*t - begin) * width, x.begin() + (*t - begin + 1) * width);
    }
  }

  const std::vector<float>& Of(size_t op) const { return rows_.at(op); }

 private:
  std::vector<int64_t> positions_;
  std::map<size_t, std::vector<float>> rows_;
};

// One run over one graph.
class Chooser {
 public:
  Chooser(const AutoquantOptions& options, Context& context, train::Machine machine)
      : options_(options), candidates_(CandidatesOf(options)), context_(context), machine_(machine) {}

  absl::Status ChooseLinear(size_t op, const std::vector<float>& x, ir::Graph& graph) {
    ir::Parameter& parameter = graph.mutable_parameter(*graph.ops()[op].weight);
    NIBBLE_ASSIGN_OR_RETURN(const ir::Parameter::Unquantized weight, parameter.LoadUnquantized(kOneMethodALayer));
    const int64_t rows = parameter.shape()[0], cols = parameter.shape()[1], tokens = static_cast<int64_t>(x.size()) / cols;
    std::vector<float> exact(tokens * rows);
    train::Multiply(machine_, {false, true, tokens, rows, cols}, x.data(), weight.values.data(), false, exact.data());
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor original, parameter.Load());
    NIBBLE_ASSIGN_OR_RETURN(Trial best, Try(absl::StrCat(kUnchanged, ", ", original.scheme.format()), original, std::nullopt, x, exact));
    int chosen = -1;
    for (size_t c = 0; c < candidates_.size(); ++c) {
      const Candidate& candidate = candidates_[c];
      auto encoded = Encode(candidate.weight(), parameter.shape(), weight.values, &context_.pool());
      if (!encoded.ok()) return Annotate(encoded.status(), absl::StrCat(parameter.name(), ", candidate ", candidate.name()));
      const std::optional<QuantScheme> activation = candidate.has_activation() ? std::optional(candidate.activation()) : std::nullopt;
      NIBBLE_ASSIGN_OR_RETURN(Trial trial, Try(candidate.name(), *std::move(encoded), activation, x, exact));
      const bool native = trial.linear->arithmetic() == kernels::Arithmetic::kNative;
      if (native && trial.error <= options_.max_error() && trial.seconds < best.seconds) best = std::move(trial), chosen = static_cast<int>(c);
    }
    Count(chosen < 0 ? kUnchanged : candidates_[chosen].name(), best.error);
    if (chosen < 0) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(parameter.Replace(std::move(best.weight)));
    if (!candidates_[chosen].has_activation()) return absl::OkStatus();
    return ir::AttachActivation(graph, {op}, candidates_[chosen].activation());
  }

  // The tables of timings and of choices.
  void Report() const {
    ReportTable times{"autoquant: milliseconds of a linear on this machine, the least of the rounds",
                      {"rows x columns", "scheme", absl::StrCat("prompt of ", options_.prompt()), absl::StrCat("reply, batch ", options_.batch())},
                      {}};
    for (const auto& [key, t] : times_) {
      times.rows.push_back({absl::StrCat(key.rows, " x ", key.cols), key.name, absl::StrFormat("%.3f", 1e3 * t.prompt), absl::StrFormat("%.3f", 1e3 * t.reply)});
    }
    ReportTable chosen{absl::StrFormat("autoquant: what linears became, errors up to %g allowed", options_.max_error()), {"scheme", "linears", "largest error"}, {}};
    for (const auto& [name, choice] : chosen_) chosen.rows.push_back({name, absl::StrCat(choice.count), absl::StrFormat("%.4f", choice.error)});
    context_.AddTable(std::move(times));
    context_.AddTable(std::move(chosen));
  }

 private:
  struct Key {
    int64_t rows, cols;
    std::string name;
    bool operator<(const Key& other) const { return std::tie(rows, cols, name) < std::tie(other.rows, other.cols, other.name); }
  };
  struct Choice {
    int64_t count = 0;
    double error = 0;
  };

  void Count(const std::string& name, double error) {
    Choice& choice = chosen_[name];
    ++choice.count;
    choice.error = std::max(choice.error, error);
  }

  absl::StatusOr<Trial> Try(const std::string& name, EncodedTensor weight, const std::optional<QuantScheme>& activation,
                            const std::vector<float>& x, const std::vector<float>& exact) {
    Trial trial{.weight = std::move(weight)};
    NIBBLE_ASSIGN_OR_RETURN(trial.linear, kernels::Linear::Create(trial.weight, activation, machine_.table));
    NIBBLE_ASSIGN_OR_RETURN(const Times times, TimesOf(name, *trial.linear));
    trial.seconds = times.prompt + options_.reply() * times.reply;
    NIBBLE_ASSIGN_OR_RETURN(trial.error, ErrorOf(*trial.linear, x, exact));
    return trial;
  }

  absl::StatusOr<Times> TimesOf(const std::string& name, const kernels::Linear& linear) {
    const auto [it, is_new] = times_.emplace(Key{linear.rows(), linear.cols(), name}, Times());
    if (!is_new) return it->second;
    const auto seconds = [&](int64_t tokens) -> absl::StatusOr<double> {
      return tokens == 0 ? 0.0 : kernels::ProductSeconds(linear, machine_.table, tokens, options_.rounds(), machine_.pool);
    };
    NIBBLE_ASSIGN_OR_RETURN(it->second.prompt, seconds(options_.prompt()));
    NIBBLE_ASSIGN_OR_RETURN(it->second.reply, seconds(options_.reply() == 0 ? 0 : options_.batch()));
    return it->second;
  }

  // |y - exact| / |exact|.
  absl::StatusOr<double> ErrorOf(const kernels::Linear& linear, const std::vector<float>& x, const std::vector<float>& exact) const {
    const int64_t tokens = static_cast<int64_t>(x.size()) / linear.cols();
    kernels::PreparedInput input;
    std::vector<float> y(exact.size());
    NIBBLE_RETURN_IF_ERROR(input.Prepare(linear.input_form(), machine_.table, x.data(), tokens, machine_.pool));
    NIBBLE_RETURN_IF_ERROR(linear.Multiply(input, y.data(), linear.rows(), machine_.pool));
    double error = 0, size = 0;
    for (size_t i = 0; i < y.size(); ++i) error += std::pow(y[i] - exact[i], 2), size += std::pow(exact[i], 2);
    return size == 0 ? 0.0 : std::sqrt(error / size);
  }

  const AutoquantOptions& options_;
  const std::vector<Candidate> candidates_;
  Context& context_;
  const train::Machine machine_;
  std::map<Key, Times> times_;
  std::map<std::string, Choice> chosen_;
};

class AutoquantMethod : public Method {
 public:
  explicit AutoquantMethod(const AutoquantOptions& options) : options_(options) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const AutoquantOptions& options) {
    NIBBLE_RETURN_IF_ERROR(Check(options));
    return std::make_unique<AutoquantMethod>(options);
  }

  double LearningTokens() const override { return CalibrationTokens(options_, 2); }
  bool depends_on_machine() const override { return true; }

  absl::Status Apply(Context& context, ir::Graph& graph) const override {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<size_t> selected, SelectBlockLinears(graph, options_.layers()));
    for (const size_t op : selected) {
      if (!graph.ops()[op].activation.has_value()) continue;
      return absl::FailedPreconditionError(absl::StrCat(graph.ops()[op].name, ": an earlier step quantized what it reads (",
                                                     SchemeToString(*graph.ops()[op].activation),
                                                     "); autoquant chooses that itself, by its candidates' activation"));
    }
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Batch> batches, CalibrationBatches(context, graph, options_.data(), options_.samples(), options_.seed()));
    NIBBLE_ASSIGN_OR_RETURN(const train::Machine machine, TrainingMachine(context));
    Chooser chooser(options_, context, machine);
    Progress progress("autoquant", static_cast<int64_t>(selected.size()));
    int64_t done = 0;
    for (int layer = 0; layer < graph.num_layers(); ++layer) {
      NIBBLE_ASSIGN_OR_RETURN(BlockRunner runner, BlockRunner::Create(graph, layer, machine));
      NIBBLE_ASSIGN_OR_RETURN(const InputSamples samples, Sample(graph, runner, &batches));
      for (const std::vector<size_t>& readers : runner.LinearsByInput()) {
        for (const size_t op : SelectedOf(readers, selected)) {
          NIBBLE_RETURN_IF_ERROR(chooser.ChooseLinear(op, samples.Of(readers[0]), graph));
          progress.Update(++done);
        }
      }
    }
    chooser.Report();
    return absl::OkStatus();
  }

 private:
  // What the block's linears read, by the first reader of each input; the batches go on
  // to what the block gives in full precision.
  absl::StatusOr<InputSamples> Sample(const ir::Graph& graph, BlockRunner& runner, std::vector<Batch>* batches) const {
    const int64_t total = std::accumulate(batches->begin(), batches->end(), int64_t{0},
                                          [](int64_t tokens, const Batch& batch) { return tokens + batch.starts.back(); });
    InputSamples samples(options_.positions(), total, options_.seed());  // the same positions for every block
    const std::vector<std::vector<size_t>> groups = runner.LinearsByInput();
    int64_t begin = 0;
    for (Batch& batch : *batches) {
      NIBBLE_RETURN_IF_ERROR(runner.Run(batch.starts, &batch.hidden, [&](size_t op, absl::Span<const float> x) {
        const bool first = std::any_of(groups.begin(), groups.end(), [&](const auto& group) { return group[0] == op; });
        if (first) samples.Add(op, begin, x, graph.values()[graph.ops()[op].inputs[0]].width);
      }));
      begin += batch.starts.back();
    }
    return samples;
  }

  const AutoquantOptions options_;
};

const MethodRegistrar<AutoquantMethod> kRegistrar(autoquant);

}  // namespace
}  // namespace nibble
