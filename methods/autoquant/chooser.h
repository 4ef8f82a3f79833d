// autoquant's choice: the fastest scheme of a linear whose output error stays within a bound.
#ifndef NIBBLE_METHODS_AUTOQUANT_CHOOSER_H_
#define NIBBLE_METHODS_AUTOQUANT_CHOOSER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "core/ir/graph.h"
#include "core/kernels/linear.h"
#include "core/train/ops.h"
#include "methods/autoquant/autoquant.pb.h"
#include "methods/method.h"

namespace nibble {

// Seconds of one product of `linear`, whose scheme the tables call `name`, with `tokens`
// tokens.
using ProductTimer = std::function<absl::StatusOr<double>(const std::string& name, const kernels::Linear& linear, int64_t tokens)>;

// By running it (kernels::ProductSeconds).
ProductTimer MeasuringTimer(int rounds, train::Machine machine);

// One run over one graph.
class SchemeChooser {
 public:
  // The name that options may not give to a candidate.
  static constexpr char kUnchanged[] = "unchanged";

  // Of the options it reads the candidates (none: NativeCandidates), the bound and the mix
  // of tokens; they and the context outlive it.
  static absl::StatusOr<SchemeChooser> Create(const AutoquantOptions& options, Context& context, train::Machine machine, ProductTimer timer);

  // Gives graph.ops()[op], a linear with float weights, the fastest candidate within the
  // bound on inputs `x` [tokens, columns]. Of equally fast ones the one with fewer bytes, then
  // the first; where none is faster than the linear as it is, or within the bound, it stays so.
  absl::Status ChooseLinear(size_t op, const std::vector<float>& x, ir::Graph& graph);

  // Adds the tables of timings and of choices to the context.
  void Report() const;

 private:
  using Candidate = AutoquantOptions::Candidate;

  // Seconds of one shape under one scheme.
  struct Times {
    double prompt = 0;  // one
    double step = 0;    // one token of each reply
    // All users' prompts and replies; infinite where the product is simulated, so not timed.
    double mix = std::numeric_limits<double>::infinity();
  };
  struct Key {
    int64_t rows, cols;
    std::string name;
    bool operator<(const Key& other) const { return std::tie(rows, cols, name) < std::tie(other.rows, other.cols, other.name); }
  };
  struct Choice {
    int64_t count = 0;
    double error = 0;  // the largest
  };
  struct Offer {
    const Candidate* candidate;
    double seconds;
    int64_t bytes;
  };

  SchemeChooser(const AutoquantOptions& options, std::vector<Candidate> candidates, Context& context, train::Machine machine, ProductTimer timer);

  // The candidates that are faster than the linear as it is, in the order of preference.
  absl::StatusOr<std::vector<Offer>> FasterCandidates(const ir::Parameter& parameter, const ir::Parameter::Unquantized& weight);
  // Timed once for each shape and name, with what `encode` gives.
  absl::StatusOr<Times> TimesOf(const Shape& shape, const std::string& name, const std::optional<QuantScheme>& activation,
                                absl::FunctionRef<absl::StatusOr<EncodedTensor>()> encode);
  absl::StatusOr<Times> Time(const std::string& name, const kernels::Linear& linear) const;
  absl::StatusOr<EncodedTensor> EncodeAs(const Candidate& candidate, const ir::Parameter& parameter, const ir::Parameter::Unquantized& weight) const;
  // |y - exact| / |exact| of the product that the candidate's kernel computes.
  absl::StatusOr<double> ErrorOf(const Candidate& candidate, const EncodedTensor& weight, const std::vector<float>& x,
                                 const std::vector<float>& exact) const;
  void Count(const std::string& name, double error);

  const AutoquantOptions& options_;
  const std::vector<Candidate> candidates_;
  Context& context_;
  const train::Machine machine_;
  const ProductTimer timer_;
  std::map<Key, Times> times_;
  std::map<std::string, Choice> chosen_;
};

}  // namespace nibble

#endif  // NIBBLE_METHODS_AUTOQUANT_CHOOSER_H_
