// Configs in text form: one text as an experiment, a pipeline, a search and a training;
// then, parted by lines "%%", the path of a field and a value for it, as --set has them.

#include "experiments/expand.h"
#include "experiments/model_training.pb.h"
#include "experiments/search/search.h"
#include "experiments/text_config.h"
#include "fuzz/input.h"
#include "methods/training/training.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 3);
  const fuzz::ScratchFolder folder;
  const std::string path = folder.Put("config.textproto", parts[0]);
  std::vector<Override> overrides;
  if (!parts[1].empty()) overrides.emplace_back(parts[1], parts[2]);
  const auto experiment = LoadExperiment(path, overrides);
  fuzz::CheckError(experiment.status(), overrides.empty() ? path : "", size);
  fuzz::CheckError(LoadPipeline(path).status(), path, size);
  Search search;
  const absl::Status read = ReadTextFile(path, &search);
  fuzz::CheckError(read, path, size);
  if (read.ok() && ResolveIncludedData(&search, folder.path()).ok()) (void)CheckSearch(search);
  ModelTraining training;
  if (ReadTextFile(path, &training).ok() && ResolveIncludedData(&training, folder.path()).ok()) (void)CheckTraining(training.training());
  return 0;
}
