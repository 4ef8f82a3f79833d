// Method: what a pipeline step does to a graph. A method is its folder under
// methods/: an options message that extends Step, a subclass, a registrar, a
// test and a page. Nothing else in the tree names it but the list methods:all.
// docs/add_a_method.md walks through adding one.
#ifndef NIBBLE_METHODS_METHOD_H_
#define NIBBLE_METHODS_METHOD_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/thread_pool.h"
#include "core/ir/graph.h"
#include "methods/step.pb.h"

namespace nibble {

namespace text {
class Tokenizer;
}

// What methods that learn read, and where they keep what they learned.
struct Workplace {
  const text::Tokenizer* tokenizer = nullptr;  // null: the model has none
  std::string directory;                       // where relative data paths start
  std::string cache;                           // a folder; "" keeps nothing
  std::string model;                           // the source's hash
  int64_t max_positions = 0;                   // that the model was made for; 0: not known
};

// How a training went, for reports.
struct LossCurve {
  std::string label;
  std::vector<double> loss;      // of each update
  std::vector<double> accuracy;  // of preferences; may be empty
  int64_t tokens = 0;
  double seconds = 0;
  bool reused = false;           // found finished in the cache, or made for an earlier variant
  std::string log;               // a CSV file of every update; "" without a cache
};

// The error that quantizing one layer made on the data that the method calibrated
// on, in a unit of the method's choice; reports show the ratio of the two.
struct LayerError {
  std::string method;         // "gptq"
  std::string layer;          // the op's name, "model.layers.3.mlp.down_proj"
  double error = 0;
  double rounding_error = 0;  // what rounding the same weights to nearest on the same scheme would have made
};

// Figures that a method tells reports beside the errors of layers.
struct ReportTable {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  // a cell for each column
};

// Something that was counted for reports.
struct CountedEvent {
  int64_t count = 0;
  std::string detail;  // of the first occurrence
};

// What a graph went through, as its steps told it.
struct BuildRecord {
  std::vector<LossCurve> curves;
  std::vector<LayerError> layer_errors;
  std::vector<ReportTable> tables;
  std::map<std::string, CountedEvent> events;
};

// What the harness offers a method, and where a method reports how it went and
// what did not go as asked.
class Context {
 public:
  explicit Context(ThreadPool& pool, Workplace workplace = {}) : pool_(pool), workplace_(std::move(workplace)) {}

  ThreadPool& pool() { return pool_; }
  const Workplace& workplace() const { return workplace_; }

  void AddCurve(LossCurve curve) { record_.curves.push_back(std::move(curve)); }
  const std::vector<LossCurve>& curves() const { return record_.curves; }

  void AddLayerError(LayerError error) { record_.layer_errors.push_back(std::move(error)); }
  const std::vector<LayerError>& layer_errors() const { return record_.layer_errors; }

  void AddTable(ReportTable table) { record_.tables.push_back(std::move(table)); }
  const std::vector<ReportTable>& tables() const { return record_.tables; }

  // Counts something that the report must show: what was asked could not be
  // done as asked, and this was done instead.
  void CountEvent(const std::string& what, int64_t count, const std::string& detail);
  const std::map<std::string, CountedEvent>& events() const { return record_.events; }

  // Everything so far, and a context that goes on from there.
  const BuildRecord& record() const { return record_; }
  void TakeUp(BuildRecord record) { record_ = std::move(record); }

 private:
  ThreadPool& pool_;
  const Workplace workplace_;
  BuildRecord record_;
};

// About what learning or calibrating takes; estimates of time and memory go by it.
struct LearningCost {
  double tokens = 0;       // that pass through the model, forward; a backward pass counts as two
  double held_tokens = 0;  // whose hidden states a calibration holds between blocks
  double copies = 0;       // fp32 copies of all weights held at once: they, gradients, moments
};

class Method {
 public:
  virtual ~Method() = default;

  virtual LearningCost Learning() const { return {}; }
  // Whether the method needs a tokenizer and data.
  bool learns() const { return Learning().tokens > 0; }

  // Whether what it makes depends on the machine that makes it, as timings do. Keys of built
  // models then name the CPU and the threads.
  virtual bool depends_on_machine() const { return false; }

  // Changes the graph: encoded parameters, activation schemes, equivalent
  // rewrites. A method never measures itself. On an error the graph is
  // unspecified.
  virtual absl::Status Apply(Context& context, ir::Graph& graph) const = 0;
};

// Checks options before anything runs and makes the method; the error says
// which field is wrong and what it may be.
using MethodFactory = std::function<absl::StatusOr<std::unique_ptr<Method>>(const Step&)>;

struct MethodInfo {
  std::string name;         // "rtn"; configs spell [nibble.rtn]
  int number = 0;           // of the extension
  const google::protobuf::FieldDescriptor* extension = nullptr;
  MethodFactory factory;
};

// Every registered method by name.
const std::map<std::string, MethodInfo>& RegisteredMethods();

void RegisterMethod(const google::protobuf::FieldDescriptor* extension, MethodFactory factory);

// The registrar of one method: M has a factory
//   static absl::StatusOr<std::unique_ptr<Method>> M::Create(const Options&).
// `extension` is the generated identifier, as in
//   const MethodRegistrar<RtnMethod> kRegistrar(nibble::rtn);
template <typename M>
struct MethodRegistrar {
  template <typename Extension>
  explicit MethodRegistrar(const Extension& extension) {
    const auto* field = Step::descriptor()->file()->pool()->FindExtensionByNumber(Step::descriptor(), extension.number());
    RegisterMethod(field, [&extension](const Step& step) { return M::Create(step.GetExtension(extension)); });
  }
};

// The method that a step asks for. Exactly one extension must be set.
absl::StatusOr<std::unique_ptr<Method>> MakeMethod(const Step& step);

// Runs one step, the one at place `index` of a pipeline; ApplyPipeline runs all.
// Gives whether the method learns.
absl::StatusOr<bool> ApplyStep(Context& context, const Step& step, int index, ir::Graph& graph);

// Runs the steps in order; an error names the step's place and method. The
// graph is verified after each.
absl::Status ApplyPipeline(Context& context, const google::protobuf::RepeatedPtrField<Step>& steps, ir::Graph& graph);

// "rtn { bits: 4 group_size: 32 } -> activations { bits: 8 }".
std::string PipelineToString(const google::protobuf::RepeatedPtrField<Step>& steps);

// Registers the descriptors (with comments) of a method's proto file.
struct ProtoDocs {
  ProtoDocs(const unsigned char* descriptor_set, size_t size);
};

// A method's documentation from its proto: what it does, every option with
// type, default and comment, and how a config spells it. NotFound with "did
// you mean".
absl::StatusOr<std::string> DescribeMethod(const std::string& name);
// The first sentence of its documentation.
std::string MethodSummary(const std::string& name);

}  // namespace nibble

#endif  // NIBBLE_METHODS_METHOD_H_
