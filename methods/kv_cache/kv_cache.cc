// kv_cache: how attention stores keys and values.

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "methods/kv_cache/kv_cache.pb.h"
#include "methods/method.h"

namespace nibble {
namespace {

absl::Status CheckBits(const char* field, int bits) {
  if (bits == 4 || bits == 8 || bits == 16) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", bits, " must be 4, 8 or 16 (fp16)"));
}

QuantScheme SchemeOf(int bits, bool asymmetric, int64_t head_dim) {
  return bits == 16 ? FloatScheme("fp16") : ir::IntegerCacheScheme(bits, asymmetric, head_dim);
}

class KvCacheMethod : public Method {
 public:
  explicit KvCacheMethod(KvCacheOptions options) : options_(std::move(options)) {}

  static absl::StatusOr<std::unique_ptr<Method>> Create(const KvCacheOptions& options) {
    NIBBLE_RETURN_IF_ERROR(CheckBits("key_bits", options.key_bits()));
    NIBBLE_RETURN_IF_ERROR(CheckBits("value_bits", options.value_bits()));
    return std::make_unique<KvCacheMethod>(options);
  }

  absl::Status Apply(Context&, ir::Graph& graph) const override {
    for (ir::Op& op : graph.mutable_ops()) {
      if (op.kind != ir::OpKind::kAttention) continue;
      if (op.keys.has_value() || op.values.has_value()) return absl::FailedPreconditionError(absl::StrCat(op.name, ": its cache has a scheme already"));
      op.keys = SchemeOf(options_.key_bits(), options_.asymmetric(), op.head_dim);
      op.values = SchemeOf(options_.value_bits(), options_.asymmetric(), op.head_dim);
    }
    return absl::OkStatus();
  }

 private:
  const KvCacheOptions options_;
};

const MethodRegistrar<KvCacheMethod> kRegistrar(kv_cache);

}  // namespace
}  // namespace nibble
