// The data sets that Nibble knows by name: where each comes from, under which
// licence, and how its file is recognized. No data set but "quickstart" is part
// of the project; nothing is downloaded.
#ifndef NIBBLE_DATASETS_REGISTRY_H_
#define NIBBLE_DATASETS_REGISTRY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble::datasets {

enum class DatasetKind { kText, kMultipleChoice };

struct KnownDataset {
  absl::string_view name;  // "wikitext-2-raw/test"
  DatasetKind kind;
  absl::string_view file;    // below a data root
  absl::string_view sha256;  // of the file; empty for files of this repository
  absl::string_view url;
  absl::string_view licence;
  // Multiple choice: what lm-evaluation-harness puts between the file's query
  // and the choice, beyond the delimiting space.
  absl::string_view context_suffix;
};

const std::vector<KnownDataset>& KnownDatasets();
// Null when there is none.
const KnownDataset* FindKnownDataset(absl::string_view name);

struct ResolvedDataset {
  std::string path;
  std::string label;                    // for metric names: the known name, or the file's name
  const KnownDataset* known = nullptr;  // null for a path
};

// A file that exists wins: an absolute path, or one relative to the working
// directory or to `base_dir`. Then a known name is looked up below $NIBBLE_DATA,
// base_dir/../shared/data,
// base_dir/../../shared/data and CacheDirectory()/data; "quickstart/..." also below
// the datasets/ folder of base_dir, of its parents and of the working directory.
// NotFound says where was looked, and whence and under which licence the set is
// to be had. A file whose SHA-256 is not the known one is FailedPrecondition.
absl::StatusOr<ResolvedDataset> ResolveDataset(const std::string& name_or_path, const std::string& base_dir);

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_REGISTRY_H_
