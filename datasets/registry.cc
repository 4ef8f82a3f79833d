#include "datasets/registry.h"

#include <cstdlib>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/suggest.h"

namespace nibble::datasets {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kQuickstart = "quickstart/";
constexpr absl::string_view kFoundry =
    "https://github.com/mosaicml/llm-foundry/tree/8c8dd48f/scripts/eval/local_data";
constexpr absl::string_view kFoundryLicence = "the set's own; the repository that carries it: Apache-2.0";
constexpr absl::string_view kAnswer = "\nAnswer:";

std::vector<KnownDataset> MakeKnownDatasets() {
  constexpr DatasetKind kText = DatasetKind::kText, kChoice = DatasetKind::kMultipleChoice;
  return {
      {"wikitext-2-raw/test", kText, "wikitext-2-raw/wiki.test.raw",
       "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
       "https://github.com/Tylogi/TyloQuant/tree/7989d038", "CC BY-SA 3.0", ""},
      {"wikitext-2-raw/valid", kText, "wikitext-2-raw/wiki.valid.raw",
       "9b3f2155c1b03f1d18ecabd8b37c0afaaad4d426c51e5d43c2a216fae8823c53",
       "https://github.com/voltagepark/Megatron-LM_with_assets/tree/239a58ba", "CC BY-SA 3.0", ""},
      {"wikitext-2-raw/train-part", kText, "wikitext-2-raw/wiki.train-part.raw",
       "ed14f9ef053842b47270b885f9d4120f4bf6a5b9a00d19e786eb39144ec10cd3",
       "https://github.com/NagusameCS/HyperTensor/tree/fe726432", "CC BY-SA 3.0", ""},
      {"hellaswag", kChoice, "hellaswag/validation.txt",
       "d572539320eb2050e858ca34b495bbe2103e3b3f1391a9c3bcdf215b0bb93bd1",
       "https://github.com/klosax/hellaswag_text_data/tree/1105d370", "MIT", ""},
      {"arc_easy", kChoice, "multiple-choice/arc_easy.jsonl",
       "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5", kFoundry, kFoundryLicence, kAnswer},
      {"arc_challenge", kChoice, "multiple-choice/arc_challenge.jsonl",
       "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636", kFoundry, kFoundryLicence, kAnswer},
      {"piqa", kChoice, "multiple-choice/piqa.jsonl",
       "d2870e73aec5154df3faf259b7700876e11608eebdf69e9d6667435673dbe4e0", kFoundry, kFoundryLicence, "Answer:"},
      {"openbook_qa", kChoice, "multiple-choice/openbook_qa.jsonl",
       "adb2e5c7f8db810ddad4d6b2bf53dcc86dcc545499f7aafcaf42a8e179476c09", kFoundry, kFoundryLicence, ""},
      {"boolq", kChoice, "multiple-choice/boolq.jsonl",
       "454ff101e614370bb1807fe7ebbda6fdb57e794b9662cc1ccae211bf1ff626c8", kFoundry, kFoundryLicence, kAnswer},
      {"quickstart/passages", kText, "quickstart/passages.txt", "", "datasets/quickstart of this repository",
       "the repository's own", ""},
      {"quickstart/questions", kChoice, "quickstart/questions.jsonl", "", "datasets/quickstart of this repository",
       "the repository's own", ""},
  };
}

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error) && !fs::is_directory(path, error);
}

// Absolute, links resolved as far as the path exists.
fs::path Canonical(const fs::path& path) {
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(fs::absolute(path, error), error);
  return error ? path : canonical;
}

// Folders that may hold `file` of a known set, in order.
std::vector<fs::path> DataRoots(const KnownDataset& known, const fs::path& base) {
  std::vector<fs::path> roots;
  if (const char* data = std::getenv("NIBBLE_DATA"); data != nullptr && *data != '\0')
    roots.push_back(Canonical(data));
  // Beside the config's folder, or beside the repository that holds it.
  roots.push_back(Canonical(base / ".." / "shared" / "data"));
  roots.push_back(Canonical(base / ".." / ".." / "shared" / "data"));
  roots.push_back(Canonical(fs::path(CacheDirectory()) / "data"));
  if (!absl::StartsWith(known.name, kQuickstart)) return roots;
  for (fs::path folder = Canonical(base);; folder = folder.parent_path()) {
    roots.push_back(folder / "datasets");
    if (folder == folder.parent_path()) break;
  }
  roots.push_back(Canonical("datasets"));
  return roots;
}

absl::Status CheckHash(const KnownDataset& known, const std::string& path) {
  if (known.sha256.empty()) return absl::OkStatus();
  NIBBLE_ASSIGN_OR_RETURN(const std::string hash, Sha256OfFile(path));
  if (hash == known.sha256) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, " is not the known '", known.name, "': its SHA-256 is ", hash, ", expected ", known.sha256,
                   " (", known.url, "). To use the file as it is, give its path instead of the name"));
}

absl::StatusOr<ResolvedDataset> ResolveKnown(const KnownDataset& known, const fs::path& base) {
  std::vector<std::string> tried;
  for (const fs::path& root : DataRoots(known, base)) {
    const std::string path = (root / std::string(known.file)).string();
    if (IsFile(path)) {
      NIBBLE_RETURN_IF_ERROR(CheckHash(known, path));
      return ResolvedDataset{path, std::string(known.name), &known};
    }
    tried.push_back(path);
  }
  return absl::NotFoundError(
      absl::StrCat("data set '", known.name, "' is not on this machine; looked for ", absl::StrJoin(tried, ", "),
                   ". It comes from ", known.url, " (licence: ", known.licence,
                   "); put it there or set NIBBLE_DATA to the folder that holds ", known.file));
}

absl::Status UnknownDataset(const std::string& name, const fs::path& base) {
  std::vector<std::string> names;
  for (const KnownDataset& known : KnownDatasets()) names.emplace_back(known.name);
  const fs::path path(name);
  std::string tried = Canonical(path).string();
  if (path.is_relative() && Canonical(base / path) != tried)
    absl::StrAppend(&tried, ", ", Canonical(base / path).string());
  return absl::NotFoundError(absl::StrCat(UnknownName("data set", name, names), "; no such file either: ", tried));
}

}  // namespace

const std::vector<KnownDataset>& KnownDatasets() {
  static const auto* const kKnown = new std::vector<KnownDataset>(MakeKnownDatasets());
  return *kKnown;
}

const KnownDataset* FindKnownDataset(absl::string_view name) {
  for (const KnownDataset& known : KnownDatasets()) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

absl::StatusOr<ResolvedDataset> ResolveDataset(const std::string& name_or_path, const std::string& base_dir) {
  if (name_or_path.empty()) return absl::InvalidArgumentError("no data set is named");
  const fs::path base = base_dir.empty() ? "." : base_dir, path = name_or_path;
  for (const fs::path& candidate : {path, base / path}) {
    if (IsFile(candidate)) return ResolvedDataset{candidate.string(), path.filename().string(), nullptr};
  }
  const KnownDataset* known = FindKnownDataset(name_or_path);
  return known != nullptr ? ResolveKnown(*known, base) : UnknownDataset(name_or_path, base);
}

}  // namespace nibble::datasets
