#include "core/models/llama_config.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "core/base/json.h"
#include "core/base/status.h"

namespace nibble {
namespace {

using nlohmann::json;

constexpr int64_t kMaxWindow = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxDimension = int64_t{1} << 24, kMaxLayers = 1024, kMaxHeadDim = 4096;
constexpr double kMaxParameters = 0x1.0p50;
constexpr char kLlamaArchitecture[] = "LlamaForCausalLM";
constexpr char kMistralArchitecture[] = "MistralForCausalLM";

absl::Status Bad(absl::string_view field, absl::string_view got, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("config: ", field, " is ", got, ", expected ", expected));
}

// Reads fields of one JSON object; null counts as absent. Values of the wrong
// kind are errors that name the field.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}

  const json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Integer(const char* key, int64_t* out) const {
    const json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!FitsInt64(*value)) return Bad(key, value->dump(), "an integer");
    *out = value->get<int64_t>();
    return absl::OkStatus();
  }

  absl::Status RequiredInteger(const char* key, int64_t* out) const {
    if (Find(key) == nullptr) return absl::InvalidArgumentError(absl::StrCat("config: ", key, " is missing"));
    return Integer(key, out);
  }

  absl::Status Number(const char* key, double* out) const {
    const json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_number()) return Bad(key, value->dump(), "a number");
    *out = value->get<double>();
    return absl::OkStatus();
  }

  absl::Status Bool(const char* key, bool* out) const {
    const json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_boolean()) return Bad(key, value->dump(), "true or false");
    *out = value->get<bool>();
    return absl::OkStatus();
  }

  // A token id, or a list of them.
  absl::Status TokenIds(const char* key, std::vector<int32_t>* out) const {
    const json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    for (const json& id : value->is_array() ? *value : json::array({*value})) {
      if (!FitsInt64(id) || id.get<int64_t>() < 0 || id.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
        return Bad(key, value->dump(), "a token id or a list of them");
      }
      out->push_back(id.get<int32_t>());
    }
    return absl::OkStatus();
  }

 private:
  static bool FitsInt64(const json& value) {
    if (!value.is_number_integer()) return false;
    return !value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()};
  }

  const json& object_;
};

absl::Status ReadArchitecture(const Fields& fields, LlamaConfig* config) {
  const json* names = fields.Find("architectures");
  if (names == nullptr || !names->is_array() || names->empty() || !names->front().is_string()) {
    return absl::InvalidArgumentError("config: architectures is missing, expected [\"LlamaForCausalLM\"]");
  }
  const std::string name = names->front().get<std::string>();
  if (name != kLlamaArchitecture && name != kMistralArchitecture) {
    return absl::UnimplementedError(absl::StrCat("config: architecture ", name, " is not supported; Nibble runs ",
                                                 kLlamaArchitecture, " and ", kMistralArchitecture));
  }
  config->model_type = name == kMistralArchitecture ? "mistral" : "llama";
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const Fields& fields) {
  if (const json* act = fields.Find("hidden_act"); act != nullptr && *act != "silu") {
    return absl::UnimplementedError(absl::StrCat("config: hidden_act ", act->dump(), " is not supported, only \"silu\""));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    bool set = false;
    NIBBLE_RETURN_IF_ERROR(fields.Bool(key, &set));
    if (set) return absl::UnimplementedError(absl::StrCat("config: ", key, " true is not supported: linears carry no bias"));
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const Fields& fields, LlamaConfig* config) {
  NIBBLE_RETURN_IF_ERROR(fields.RequiredInteger("hidden_size", &config->hidden_size));
  NIBBLE_RETURN_IF_ERROR(fields.RequiredInteger("intermediate_size", &config->intermediate_size));
  NIBBLE_RETURN_IF_ERROR(fields.RequiredInteger("num_hidden_layers", &config->num_hidden_layers));
  NIBBLE_RETURN_IF_ERROR(fields.RequiredInteger("num_attention_heads", &config->num_attention_heads));
  NIBBLE_RETURN_IF_ERROR(fields.RequiredInteger("vocab_size", &config->vocab_size));
  config->max_position_embeddings = 2048;
  NIBBLE_RETURN_IF_ERROR(fields.Integer("max_position_embeddings", &config->max_position_embeddings));
  config->num_key_value_heads = config->num_attention_heads;
  NIBBLE_RETURN_IF_ERROR(fields.Integer("num_key_value_heads", &config->num_key_value_heads));
  if (config->num_attention_heads > 0) config->head_dim = config->hidden_size / config->num_attention_heads;
  return fields.Integer("head_dim", &config->head_dim);
}

absl::Status ReadLlama3Scaling(const Fields& fields, LlamaConfig* config) {
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    if (fields.Find(key) == nullptr) return Bad(absl::StrCat("rope_scaling.", key), "nothing", "a number, as for every llama3 scaling");
  }
  Llama3RopeScaling scaling;
  NIBBLE_RETURN_IF_ERROR(fields.Number("factor", &scaling.factor));
  NIBBLE_RETURN_IF_ERROR(fields.Number("low_freq_factor", &scaling.low_freq_factor));
  NIBBLE_RETURN_IF_ERROR(fields.Number("high_freq_factor", &scaling.high_freq_factor));
  NIBBLE_RETURN_IF_ERROR(fields.Number("original_max_position_embeddings", &scaling.original_max_position_embeddings));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

// "rope_scaling", or "rope_parameters", which holds theta as well.
absl::Status ReadRopeObject(const json& object, LlamaConfig* config) {
  if (!object.is_object()) return Bad("rope_scaling", object.dump(), "an object or null");
  const Fields fields(object);
  NIBBLE_RETURN_IF_ERROR(fields.Number("rope_theta", &config->rope_theta));
  const json* type = fields.Find("rope_type");
  if (type == nullptr) type = fields.Find("type");
  if (type == nullptr || *type == "default") return absl::OkStatus();
  if (*type == "llama3") return ReadLlama3Scaling(fields, config);
  if (*type == "linear") {
    if (fields.Find("factor") == nullptr) return Bad("rope_scaling.factor", "nothing", "a number, as for every linear scaling");
    return fields.Number("factor", &config->rope_linear_factor);
  }
  return absl::UnimplementedError(
      absl::StrCat("config: rope_type ", type->dump(), " is not supported; Nibble knows default, linear and llama3"));
}

absl::Status ReadRope(const Fields& fields, LlamaConfig* config) {
  NIBBLE_RETURN_IF_ERROR(fields.Number("rope_theta", &config->rope_theta));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (const json* object = fields.Find(key); object != nullptr) {
      NIBBLE_RETURN_IF_ERROR(ReadRopeObject(*object, config));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRest(const Fields& fields, LlamaConfig* config) {
  config->rms_norm_eps = 1e-6;  // the library's default where a file is silent
  NIBBLE_RETURN_IF_ERROR(fields.Number("rms_norm_eps", &config->rms_norm_eps));
  NIBBLE_RETURN_IF_ERROR(fields.Bool("tie_word_embeddings", &config->tie_word_embeddings));
  std::vector<int32_t> bos;
  NIBBLE_RETURN_IF_ERROR(fields.TokenIds("bos_token_id", &bos));
  if (!bos.empty()) config->bos_token_id = bos.front();
  NIBBLE_RETURN_IF_ERROR(fields.TokenIds("eos_token_id", &config->eos_token_ids));
  if (config->model_type == "mistral" && fields.Find("sliding_window") != nullptr) {
    config->sliding_window.emplace();
    NIBBLE_RETURN_IF_ERROR(fields.Integer("sliding_window", &*config->sliding_window));
  }
  return absl::OkStatus();
}

absl::StatusOr<LlamaConfig> ReadConfig(const json& object) {
  if (!object.is_object()) return absl::InvalidArgumentError("config: not a JSON object");
  const Fields fields(object);
  LlamaConfig config;
  NIBBLE_RETURN_IF_ERROR(ReadArchitecture(fields, &config));
  NIBBLE_RETURN_IF_ERROR(RefuseUnsupported(fields));
  NIBBLE_RETURN_IF_ERROR(ReadSizes(fields, &config));
  NIBBLE_RETURN_IF_ERROR(ReadRope(fields, &config));
  NIBBLE_RETURN_IF_ERROR(ReadRest(fields, &config));
  NIBBLE_RETURN_IF_ERROR(config.Validate());
  return config;
}


absl::Status CheckPositive(absl::string_view field, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return Bad(field, absl::StrCat(value), "a positive number");
}

absl::Status ValidateScaling(const Llama3RopeScaling& scaling) {
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rope_scaling.factor", scaling.factor));
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rope_scaling.low_freq_factor", scaling.low_freq_factor));
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rope_scaling.high_freq_factor", scaling.high_freq_factor));
  NIBBLE_RETURN_IF_ERROR(
      CheckPositive("rope_scaling.original_max_position_embeddings", scaling.original_max_position_embeddings));
  if (scaling.low_freq_factor < scaling.high_freq_factor) return absl::OkStatus();
  return Bad("rope_scaling.low_freq_factor", absl::StrCat(scaling.low_freq_factor),
             absl::StrCat("less than high_freq_factor ", scaling.high_freq_factor));
}

// How much slower than unscaled the frequency turns.
double Llama3Divisor(const Llama3RopeScaling& s, double frequency) {
  const double turns = s.original_max_position_embeddings * frequency / (2 * std::numbers::pi);  // in the old context
  if (turns > s.high_freq_factor) return 1;
  if (turns < s.low_freq_factor) return s.factor;
  const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return 1 / ((1 - smooth) / s.factor + smooth);
}

json RopeToJson(const LlamaConfig& config) {
  if (config.rope_scaling.has_value()) {
    const Llama3RopeScaling& s = *config.rope_scaling;
    return {{"rope_type", "llama3"},
            {"factor", s.factor},
            {"low_freq_factor", s.low_freq_factor},
            {"high_freq_factor", s.high_freq_factor},
            {"original_max_position_embeddings", s.original_max_position_embeddings}};
  }
  if (config.rope_linear_factor != 1) return {{"rope_type", "linear"}, {"factor", config.rope_linear_factor}};
  return nullptr;
}

}  // namespace

absl::Status LlamaConfig::Validate() const {
  const std::pair<const char*, int64_t> sizes[] = {
      {"hidden_size", hidden_size},
      {"intermediate_size", intermediate_size},
      {"num_hidden_layers", num_hidden_layers},
      {"num_attention_heads", num_attention_heads},
      {"num_key_value_heads", num_key_value_heads},
      {"head_dim", head_dim},
      {"vocab_size", vocab_size},
      {"max_position_embeddings", max_position_embeddings}};
  for (const auto& [field, value] : sizes) {
    if (value < 1 || value >= kMaxDimension) return Bad(field, absl::StrCat(value), "1 to 2^24 - 1");
  }
  if (num_hidden_layers > kMaxLayers) return Bad("num_hidden_layers", absl::StrCat(num_hidden_layers), absl::StrCat("at most ", kMaxLayers));
  if (head_dim > kMaxHeadDim) return Bad("head_dim", absl::StrCat(head_dim), absl::StrCat("at most ", kMaxHeadDim));
  if (num_attention_heads * head_dim >= kMaxDimension) {
    return Bad("num_attention_heads * head_dim", absl::StrCat(num_attention_heads * head_dim), "at most 2^24 - 1");
  }
  if (num_attention_heads % num_key_value_heads != 0) {
    return Bad("num_attention_heads", absl::StrCat(num_attention_heads),
               absl::StrCat("a multiple of num_key_value_heads ", num_key_value_heads));
  }
  const double width = static_cast<double>(hidden_size), rows = 4.0 * static_cast<double>(num_attention_heads * head_dim) + 3.0 * static_cast<double>(intermediate_size);
  const double parameters = width * (static_cast<double>(num_hidden_layers) * rows + 2.0 * static_cast<double>(vocab_size));
  if (parameters > kMaxParameters) return Bad("the number of parameters", absl::StrCat("about ", parameters), "at most 2^50");
  if (head_dim % 2 != 0) return Bad("head_dim", absl::StrCat(head_dim), "an even number");
  if (sliding_window.has_value() && (*sliding_window < 1 || *sliding_window > kMaxWindow)) {
    return Bad("sliding_window", absl::StrCat(*sliding_window), "1 to 2^31 - 1");
  }
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rms_norm_eps", rms_norm_eps));
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rope_theta", rope_theta));
  NIBBLE_RETURN_IF_ERROR(CheckPositive("rope_scaling.factor", rope_linear_factor));
  if (model_type != "llama" && model_type != "mistral") return Bad("model_type", model_type, "llama or mistral");
  return rope_scaling.has_value() ? ValidateScaling(*rope_scaling) : absl::OkStatus();
}

absl::StatusOr<LlamaConfig> LlamaConfig::FromJson(absl::string_view text, absl::string_view source) {
  NIBBLE_ASSIGN_OR_RETURN(const json object, ParseJson(text, source));
  auto config = ReadConfig(object);
  if (!config.ok()) return Annotate(config.status(), source);
  return config;
}

std::string LlamaConfig::ToJson() const {
  nlohmann::ordered_json object;
  object["architectures"] = {model_type == "mistral" ? kMistralArchitecture : kLlamaArchitecture};
  object["model_type"] = model_type;
  object["hidden_act"] = "silu";
  object["hidden_size"] = hidden_size;
  object["intermediate_size"] = intermediate_size;
  object["num_hidden_layers"] = num_hidden_layers;
  object["num_attention_heads"] = num_attention_heads;
  object["num_key_value_heads"] = num_key_value_heads;
  object["head_dim"] = head_dim;
  object["vocab_size"] = vocab_size;
  object["max_position_embeddings"] = max_position_embeddings;
  object["rms_norm_eps"] = rms_norm_eps;
  object["rope_theta"] = rope_theta;
  object["rope_scaling"] = RopeToJson(*this);
  object["tie_word_embeddings"] = tie_word_embeddings;
  object["attention_bias"] = false;
  object["mlp_bias"] = false;
  if (sliding_window.has_value()) object["sliding_window"] = *sliding_window;
  if (bos_token_id.has_value()) object["bos_token_id"] = *bos_token_id;
  if (eos_token_ids.size() == 1) object["eos_token_id"] = eos_token_ids.front();
  if (eos_token_ids.size() > 1) object["eos_token_id"] = eos_token_ids;
  object["torch_dtype"] = "bfloat16";
  return object.dump(2) + "\n";
}

std::vector<double> LlamaConfig::InverseFrequencies() const {
  std::vector<double> frequencies(head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double frequency = 1 / std::pow(rope_theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double divisor = rope_scaling.has_value() ? Llama3Divisor(*rope_scaling, frequency) : 1;
    frequencies[i] = frequency / divisor / rope_linear_factor;
  }
  return frequencies;
}

int64_t LlamaConfig::ParameterCount() const {
  const int64_t query = num_attention_heads * head_dim, key = num_key_value_heads * head_dim;
  const int64_t attention = hidden_size * (2 * query + 2 * key);
  const int64_t layer = attention + 3 * hidden_size * intermediate_size + 2 * hidden_size;
  const int64_t embeddings = (tie_word_embeddings ? 1 : 2) * vocab_size * hidden_size;
  return num_hidden_layers * layer + embeddings + hidden_size;
}

}  // namespace nibble
