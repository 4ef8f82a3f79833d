#include "eval/size.h"

#include <array>

#include "absl/strings/match.h"
#include "core/base/status.h"
#include "eval/metric.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

enum Part { kEmbedding, kAttention, kMlp, kNorms, kHead, kAdapters, kOther, kParts };
constexpr absl::string_view kPartNames[kParts] = {"embedding", "attention", "mlp", "norms", "head", "adapters", "other"};

Part PartOf(const ir::Op& op) {
  if (op.kind == ir::OpKind::kEmbed) return kEmbedding;
  if (op.kind == ir::OpKind::kLogits) return kHead;
  if (op.kind == ir::OpKind::kRmsNorm) return kNorms;
  if (op.adapter) return kAdapters;
  if (absl::StrContains(op.name, ".self_attn.")) return kAttention;
  return absl::StrContains(op.name, ".mlp.") ? kMlp : kOther;
}

struct Size {
  int64_t bytes = 0;
  int64_t parameters = 0;
};

// The sizes by part; of several users of a parameter the first decides.
absl::StatusOr<std::array<Size, kParts>> PartSizes(const ir::Graph& graph) {
  std::array<Size, kParts> sizes;
  for (size_t id = 0; id < graph.parameters().size(); ++id) {
    const std::vector<const ir::Op*> users = graph.Users(static_cast<ir::ParameterId>(id));
    if (users.empty()) continue;
    NIBBLE_ASSIGN_OR_RETURN(const EncodedTensor tensor, graph.parameters()[id].Load());
    Size& size = sizes[PartOf(*users.front())];
    size.bytes += tensor.byte_size();
    size.parameters += tensor.rows() * tensor.cols();
  }
  return sizes;
}

Metric SizeMetric(const std::string& name, absl::string_view unit) {
  Metric metric = MakeMetric({.name = name,
                              .unit = unit,
                              .better = LOWER,
                              .aggregate = Metric::NONE,
                              .convention = "all buffers of all parameters, a tied head once"});
  return metric;
}

void AddParts(const std::array<Size, kParts>& sizes, Metric* metric) {
  for (int p = 0; p < kParts; ++p) {
    if (sizes[p].parameters == 0) continue;
    AddPart(kPartNames[p], sizes[p].bytes, metric);
    metric->mutable_part(metric->part_size() - 1)->set_parameters(sizes[p].parameters);
  }
}

}  // namespace

absl::StatusOr<std::vector<Metric>> MeasureSize(const ir::Graph& graph) {
  NIBBLE_ASSIGN_OR_RETURN(const auto sizes, PartSizes(graph));
  Size all;
  for (const Size& size : sizes) {
    all.bytes += size.bytes;
    all.parameters += size.parameters;
  }
  if (all.parameters == 0) return absl::InvalidArgumentError("the graph has no parameters");
  Metric mib = SizeMetric("size_mib", "MiB");
  AddParts(sizes, &mib);
  mib.set_value(static_cast<double>(all.bytes) / kBytesPerMiB);
  Metric bits = SizeMetric("bits_per_weight", "bits");
  bits.set_value(8.0 * static_cast<double>(all.bytes) / static_cast<double>(all.parameters));
  mib.set_count(all.parameters);
  bits.set_count(all.parameters);
  NIBBLE_RETURN_IF_ERROR(FillMetric(&mib));
  NIBBLE_RETURN_IF_ERROR(FillMetric(&bits));
  return std::vector<Metric>{mib, bits};
}

}  // namespace nibble::eval
