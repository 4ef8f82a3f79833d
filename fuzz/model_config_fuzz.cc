// config.json of Hugging Face models, and the graph that is built from it.

#include "fuzz/input.h"

namespace nibble {
namespace {

// Says that everything is there and holds nothing: what a configuration alone asks for.
class EmptyStore : public WeightStore {
 public:
  bool Has(const std::string& name) const override { return true; }
  absl::StatusOr<EncodedTensor> Load(const std::string& name) const override { return absl::NotFoundError(name); }
};

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto config = LlamaConfig::FromJson(fuzz::Text(data, size), "config.json");
  fuzz::CheckError(config.status(), "config.json: ", size);
  if (!config.ok()) return 0;
  NIBBLE_FUZZ_EXPECT(config->ParameterCount() > 0);
  const auto again = LlamaConfig::FromJson(config->ToJson(), "again");
  NIBBLE_FUZZ_EXPECT(again.ok() && again->ToJson() == config->ToJson());
  fuzz::LoadWeights(*config, std::make_shared<EmptyStore>());
  return 0;
}
