#include "methods/kquants/mixes.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/quant/format.h"

namespace nibble {
namespace {

// Layers of a 70B model, whose values llama.cpp gives more bits.
constexpr int kLayersOf70B = 80;

// The first and the last eighth of the layers, and every third between.
bool UseMoreBits(int layer, int layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

const std::map<std::string, std::string>& BaseTypes() {
  static const auto* types = new std::map<std::string, std::string>{
      {"Q2_K", "q2_k"}, {"Q3_K_S", "q3_k"}, {"Q3_K_M", "q3_k"}, {"Q3_K_L", "q3_k"}, {"Q4_K_S", "q4_k"}, {"Q4_K_M", "q4_k"}, {"Q5_K_S", "q5_k"},
      {"Q5_K_M", "q5_k"}, {"Q6_K", "q6_k"}, {"Q4_0", "q4_0"}, {"Q4_1", "q4_1"}, {"Q5_0", "q5_0"}, {"Q5_1", "q5_1"}, {"Q8_0", "q8_0"}};
  return *types;
}

std::string UsualValueType(const std::string& mix, const std::string& base, const TensorInModel& t) {
  if (mix == "Q2_K") return t.queries_per_key >= 4 ? "q4_k" : "q3_k";
  if (mix == "Q3_K_M") return t.layer < 2 ? "q5_k" : "q4_k";
  if (mix == "Q3_K_L") return "q5_k";
  if (mix == "Q4_K_S" && t.layer < 4) return "q5_k";
  if ((mix == "Q4_K_M" || mix == "Q5_K_M") && UseMoreBits(t.layer, t.layers)) return "q6_k";
  return base;
}

// Values of the 70B shape are small beside the rest, and rounded less.
std::string ValueType(const std::string& mix, const std::string& base, const TensorInModel& t) {
  const std::string type = UsualValueType(mix, base, t);
  return t.layers == kLayersOf70B && t.queries_per_key > 1 && (type == "q3_k" || type == "q4_k") ? "q5_k" : type;
}

std::string DownType(const std::string& mix, const std::string& base, const TensorInModel& t) {
  if (mix == "Q2_K") return "q3_k";
  if (mix == "Q3_K_M") return t.layer < t.layers / 16 ? "q5_k" : "q4_k";
  if (mix == "Q3_K_L") return "q5_k";
  if (mix == "Q4_K_S" && t.layer < t.layers / 8) return "q5_k";
  if ((mix == "Q4_K_M" || mix == "Q5_K_M") && UseMoreBits(t.layer, t.layers)) return "q6_k";
  return base;
}

std::string AttentionOutputType(const std::string& mix, const std::string& base) {
  if (mix == "Q2_K") return "q3_k";
  if (mix == "Q3_K_M") return "q4_k";
  if (mix == "Q3_K_L") return "q5_k";
  return base;
}

std::string WantedType(const std::string& mix, const std::string& base, const TensorInModel& t) {
  switch (t.place) {
    case TensorPlace::kOutput: return base == "q8_0" ? base : "q6_k";
    case TensorPlace::kValue: return ValueType(mix, base, t);
    case TensorPlace::kDown: return DownType(mix, base, t);
    case TensorPlace::kAttentionOutput: return AttentionOutputType(mix, base);
    default: return base;
  }
}

// What takes the place of a type of 256 columns.
std::string SmallerType(const std::string& format) {
  if (format == "q4_k") return "q5_0";
  if (format == "q5_k") return "q5_1";
  if (format == "q6_k") return "q8_0";
  return "iq4_nl";
}

bool Divides(const std::string& format, int64_t cols) { return cols % (*FindFormat(format))->row_multiple() == 0; }

}  // namespace

ChosenType FittingType(const std::string& format, int64_t cols) {
  if (Divides(format, cols)) return {format, ""};
  const std::string smaller = absl::EndsWith(format, "_k") ? SmallerType(format) : "";
  return {!smaller.empty() && Divides(smaller, cols) ? smaller : "fp16", format};
}

absl::StatusOr<ChosenType> TypeInMix(const std::string& mix, const TensorInModel& tensor) {
  const auto base = BaseTypes().find(mix);
  if (base == BaseTypes().end()) return absl::InvalidArgumentError(UnknownName("mix", mix, MixNames()));
  return FittingType(WantedType(mix, base->second, tensor), tensor.cols);
}

std::vector<std::string> MixNames() {
  std::vector<std::string> names;
  for (const auto& [name, base] : BaseTypes()) names.push_back(name);
  return names;
}

absl::StatusOr<TensorInModel> PlaceOf(const ir::Graph& graph, const ir::Op& op) {
  static constexpr std::pair<absl::string_view, TensorPlace> kPlaces[] = {
      {".q_proj", TensorPlace::kQuery}, {".k_proj", TensorPlace::kKey}, {".v_proj", TensorPlace::kValue}, {".o_proj", TensorPlace::kAttentionOutput},
      {".gate_proj", TensorPlace::kGate}, {".up_proj", TensorPlace::kUp}, {".down_proj", TensorPlace::kDown}};
  TensorInModel tensor;
  tensor.cols = graph.parameter(*op.weight).shape().back();
  tensor.layers = graph.num_layers();
  tensor.layer = std::max(0, op.layer);
  for (const ir::Op& other : graph.ops()) {
    if (other.kind == ir::OpKind::kAttention) tensor.queries_per_key = other.heads / other.kv_heads;
  }
  if (op.kind == ir::OpKind::kEmbed || op.kind == ir::OpKind::kLogits) {
    tensor.place = op.kind == ir::OpKind::kLogits || graph.tied() ? TensorPlace::kOutput : TensorPlace::kEmbedding;
    return tensor;
  }
  for (const auto& [suffix, place] : kPlaces) {
    if (!absl::EndsWith(op.name, suffix)) continue;
    tensor.place = place;
    return tensor;
  }
  return absl::UnimplementedError(absl::StrCat(op.name, ": mixes say nothing of such a layer; narrow layers"));
}

}  // namespace nibble
