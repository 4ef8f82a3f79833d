// nibble quantize: a model through a pipeline into a folder or a GGUF file.

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "eval/size.h"
#include "experiments/expand.h"
#include "experiments/model.h"
#include "experiments/text_config.h"
#include "methods/method.h"
#include "tools/command.h"

namespace nibble::tools {
namespace {

absl::StatusOr<int> Quantize(const Options& options) {
  const std::string format = options.Text("format"), out = options.Text("out");
  NIBBLE_RETURN_IF_ERROR(Annotate(CheckSaveFormat(format), "--format"));
  NIBBLE_ASSIGN_OR_RETURN(const Pipeline pipeline, LoadPipeline(options.Text("pipeline")));
  NIBBLE_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(options.Text("model")));
  NIBBLE_ASSIGN_OR_RETURN(const int threads, ThreadsOf(options));
  ThreadPool pool(ThreadsOrAll(threads));
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, model.source.Hash());
  Context context(pool, WorkplaceOf(model, DirectoryOf(options.Text("pipeline")), out + ".work", hash));
  NIBBLE_RETURN_IF_ERROR(Annotate(ApplyPipeline(context, pipeline.step(), model.graph), options.Text("model")));
  NIBBLE_RETURN_IF_ERROR(SaveModel(model.source, model.graph, PipelineToString(pipeline.step()), out, format));
  PrintEvents(context.events());
  NIBBLE_ASSIGN_OR_RETURN(const std::vector<Metric> size, eval::MeasureSize(model.graph));
  std::printf("%s: ", out.c_str());
  for (const Metric& metric : size) std::printf("%s %.4g  ", metric.name().c_str(), metric.value());
  std::printf("\n");
  return kDone;
}

}  // namespace

Command QuantizeCommand() {
  namespace po = boost::program_options;
  Command command;
  command.name = "quantize";
  command.summary = "Runs a pipeline on a model and writes the quantized model.";
  command.usage = "quantize --model M --pipeline FILE --out PATH [--format F] [--threads N]";
  command.examples =
      "  nibble quantize --model smollm2-135m --pipeline configs/pipelines/llama32.textproto --out out/smollm2-w4a8\n"
      "  nibble quantize --model smollm2-135m --pipeline configs/pipelines/q4_k_m.textproto --out smollm2-q4_k_m.gguf --format gguf\n"
      "  nibble eval --model out/smollm2-w4a8 --task perplexity:quickstart/passages\n";
  command.options.add_options()("model", po::value<std::string>(),
                                "a folder, a .gguf or llama2.c .bin file, synthetic:<preset>, or a fetched name; decoded: before it for floats")(
      "pipeline", po::value<std::string>(), "the steps, a text nibble.Pipeline")("out", po::value<std::string>(), "the folder or file to write")(
      "format", po::value<std::string>()->default_value("folder"),
      "folder (Nibble's own), or for other programs: gguf (llama.cpp), compressed-tensors (vLLM, transformers), meta (consolidated.00.pth)")(
      "threads", po::value<int>(), "threads (default: all CPUs)");
  command.required = {"model", "pipeline", "out"};
  command.run = Quantize;
  return command;
}

}  // namespace nibble::tools
