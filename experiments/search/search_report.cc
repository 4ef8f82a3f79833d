#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "experiments/search/search.h"
#include "reports/pareto.h"

namespace nibble {
namespace {

// How many ops of each kind, or of each block, went to each candidate.
std::string ChoiceTable(const Search& search, const Sensitivities& sensitivities, const Mix& mix, bool by_block) {
  std::map<std::string, std::vector<int>> counts;
  std::vector<std::string> order;
  for (size_t u = 0; u < sensitivities.units.size(); ++u) {
    const SearchUnit& unit = sensitivities.units[u];
    for (const std::string& op : unit.ops) {
      const std::string row = by_block && unit.in_blocks() ? absl::StrCat("block ", unit.part.first) : op.substr(op.rfind('.') + 1);
      auto [it, added] = counts.emplace(row, std::vector<int>(search.candidate_size()));
      if (added) order.push_back(row);
      ++it->second[mix.choice[u]];
    }
  }
  std::string table = "| |";
  for (const auto& candidate : search.candidate()) absl::StrAppend(&table, " ", candidate.name(), " |");
  absl::StrAppend(&table, "\n|---|");
  for (int c = 0; c < search.candidate_size(); ++c) absl::StrAppend(&table, "---:|");
  for (const std::string& row : order) absl::StrAppend(&table, "\n| ", row, " | ", absl::StrJoin(counts.at(row), " | "), " |");
  return table + "\n";
}

// A row for each mix; times where a budget is of them.
std::string MixTable(const std::vector<Mix>& mixes, bool timed) {
  std::string table = absl::StrCat("| | size, MiB |", timed ? " predicted ms a token | measured ms a token |" : "", " predicted loss | measured loss |\n|---|---:|",
                                   timed ? "---:|---:|" : "", "---:|---:|\n");
  for (const Mix& mix : mixes) {
    absl::StrAppendFormat(&table, "| %s | %.2f |", mix.name, mix.cost.bytes / (1 << 20));
    if (timed) absl::StrAppendFormat(&table, " %.3f | %.3f%s |", mix.predicted_cost.seconds * 1e3, mix.cost.seconds * 1e3, IsBeyondBudget(mix) ? ", beyond its budget" : "");
    absl::StrAppendFormat(&table, " %.5f | %.5f |\n", mix.predicted_loss, mix.loss);
  }
  return table;
}

// The losses over a cost: the predicted front and, in the plot, what was measured.
absl::Status WriteFront(const Sensitivities& sensitivities, const std::vector<Mix>& mixes, Budget::Kind kind, const std::string& path) {
  const bool time = kind == Budget::Kind::kDecodeMs;
  const double unit = time ? 1e-3 : 1 << 20;
  std::vector<ParetoPoint> points, front;
  for (const Mix& mix : mixes) points.push_back({mix.name, (time ? mix.cost.seconds : mix.cost.bytes) / unit, mix.loss, false});
  std::string table = time ? "ms_a_token,predicted_loss\n" : "size_mib,predicted_loss\n";
  for (const Selection& selection : PredictedFront(sensitivities, kind)) {
    if (selection.loss > 0) front.push_back({"", selection.cost / unit, selection.loss, false});
    absl::StrAppendFormat(&table, "%.6g,%.6g\n", selection.cost / unit, selection.loss);
  }
  NIBBLE_RETURN_IF_ERROR(WriteFile(path + ".csv", table));
  return WriteFile(path + ".svg", ParetoSvg(points, time ? "decoded token, ms" : "size, MiB", "KL divergence, nats", front));
}

bool Builds(const Search& search) {
  return std::any_of(search.candidate().begin(), search.candidate().end(), [](const auto& candidate) { return !candidate.build().empty(); });
}

}  // namespace

absl::Status WriteSearchReport(const Search& search, const Sensitivities& sensitivities, const std::vector<Mix>& mixes,
                               const std::string& out) {
  const bool timed = !search.budget_ms().empty();
  std::string text = absl::StrCat("# Search on ", search.model().source(), "\n\nThe loss is the mean KL divergence of the next token, in nats, on ",
                                  search.samples(), " windows of the calibration text: predicted as the sum over units, each quantized alone, and ",
                                  "measured with all of them quantized. [report.md](report.md) has what was measured on held-out text.\n");
  if (Builds(search)) absl::StrAppend(&text, "\nLosses are those of each candidate's `step`; the models of report.md are made by its `build`.\n");
  if (timed) {
    absl::StrAppend(&text, "\nThe time is that of a decoded token after a prompt of ", search.depth(), " tokens, the fastest of ", search.rounds(),
                    " rounds: predicted from the linears' times in the candidates for all, and measured in the mix, which is chosen again for less ",
                    "where it is beyond its budget. Mixes are timed one after the other; report.md has them in turn, with their spread.\n");
  }
  absl::StrAppend(&text, "\n", MixTable(mixes, timed), "\nThe line is the predicted front ([front.csv](front.csv)), the dots are measured.\n\n![loss over size](front.svg)\n", timed ? "\n![loss over time](front_ms.svg)\n" : "");
  for (const Mix& mix : mixes) {
    NIBBLE_RETURN_IF_ERROR(WriteFile(absl::StrCat(out, "/", mix.name, ".textproto"), ProtoToText(mix.pipeline)));
    if (!mix.budget.has_value()) continue;
    absl::StrAppend(&text, "\n## ", mix.name, "\n\nLinears and tables by candidate; `nibble quantize --pipeline ", mix.name, ".textproto` makes the model.\n\n",
                    ChoiceTable(search, sensitivities, mix, false), "\n", ChoiceTable(search, sensitivities, mix, true));
  }
  NIBBLE_RETURN_IF_ERROR(WriteFront(sensitivities, mixes, Budget::Kind::kMib, out + "/front"));
  if (timed) NIBBLE_RETURN_IF_ERROR(WriteFront(sensitivities, mixes, Budget::Kind::kDecodeMs, out + "/front_ms"));
  return WriteFile(out + "/search.md", text);
}

}  // namespace nibble
