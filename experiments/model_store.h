// ModelStore: the models that a sweep has built, one folder each, under keys that name
// everything they were made of. What is under a key is whole: a model gets its place by
// a rename when it is finished.
#ifndef NIBBLE_EXPERIMENTS_MODEL_STORE_H_
#define NIBBLE_EXPERIMENTS_MODEL_STORE_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "experiments/job.pb.h"
#include "experiments/model.h"

namespace nibble {

class ModelStore {
 public:
  // `others`: folders of other stores, which are only read.
  explicit ModelStore(std::string folder, std::vector<std::string> others = {}) : folder_(std::move(folder)), others_(std::move(others)) {}

  bool Has(const std::string& key) const;
  // The folder of a model, which every command loads.
  std::string PathOf(const std::string& key) const;
  absl::StatusOr<BuildReport> Report(const std::string& key) const;

  // Of the model's files; 0 where there is none.
  int64_t BytesOf(const std::string& key) const;

  // Puts a graph there. `source`: what it was made from, for configuration and tokenizer.
  absl::Status Put(const std::string& key, const io::LoadedModel& source, const ir::Graph& graph, const std::string& pipeline,
                   const BuildReport& report);

  // Removes all models but `keys`, and what killed processes left.
  absl::Status KeepOnly(const std::set<std::string>& keys);

 private:
  const std::string folder_;
  const std::vector<std::string> others_;
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_MODEL_STORE_H_
