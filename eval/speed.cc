#include "eval/speed.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/progress.h"
#include "core/base/status.h"
#include "core/kernels/machine.h"
#include "eval/latency.h"
#include "eval/statistics.h"

namespace nibble::eval {
namespace {

constexpr int64_t kBatchDepth = 128;

double ErrorOfMean(const Spread& spread, size_t values) {
  return spread.deviation.value_or(0) / std::sqrt(static_cast<double>(values));
}

Speed MakeSpeed(std::string name, const std::vector<double>& seconds, int64_t tokens) {
  const Spread time = SpreadOf(seconds);
  const double rate = static_cast<double>(tokens) / time.mean;
  // The rate's relative error is that of the mean time.
  return {std::move(name), rate, rate * ErrorOfMean(time, seconds.size()) / time.mean};
}

// "model.layers.3.self_attn.q_proj" is q_proj.
std::string ShortName(const PlanStep& step) {
  switch (step.kind) {
    case PlanStep::Kind::kLinear: {
      const std::vector<std::string> parts = absl::StrSplit(step.op.name, '.');
      return parts.back();
    }
    case PlanStep::Kind::kEmbed: return "embedding";
    case PlanStep::Kind::kRmsNorm: return "rms_norm";
    case PlanStep::Kind::kRope: return "rope";
    case PlanStep::Kind::kAttention: return "attention";
    case PlanStep::Kind::kAdd: return "add";
    default: return "silu_mul";
  }
}

Products ProductsOf(const kernels::Linear& linear) {
  switch (linear.input_form().kind) {
    case kernels::InputForm::Kind::kQuantized: return Products::kBytes;
    case kernels::InputForm::Kind::kBf16: return Products::kBf16;
    default: return Products::kFloat;
  }
}

double LinearOps(const kernels::Linear& linear, double tokens) {
  return 2.0 * static_cast<double>(linear.rows()) * static_cast<double>(linear.cols()) * tokens;
}

class SpeedRun {
 public:
  SpeedRun(const Plan& plan, ThreadPool& pool, const SpeedOptions& options) : plan_(plan), pool_(pool), options_(options) {
    for (const auto& linear : plan_.linears()) report_.decode_bytes += static_cast<double>(linear->weight_bytes());
    report_.decode_bytes += static_cast<double>(plan_.head().weight_bytes());
  }

  absl::StatusOr<SpeedReport> Run() {
    Progress progress("bench", static_cast<int64_t>(options_.prefill.size() + options_.depth.size() + options_.streams.size()));
    int64_t done = 0;
    for (const int64_t n : options_.prefill) {
      NIBBLE_RETURN_IF_ERROR(Prefill(n, n == options_.prefill.back()));
      progress.Update(++done);
    }
    for (const int64_t n : options_.depth) {
      NIBBLE_RETURN_IF_ERROR(Decode(absl::StrCat("decode/", n), n, 1, n == options_.depth.back()));
      progress.Update(++done);
    }
    for (const int64_t n : options_.streams) {
      NIBBLE_RETURN_IF_ERROR(Decode(absl::StrCat("batch_decode/", n), kBatchDepth, static_cast<int>(n), false));
      progress.Update(++done);
    }
    return std::move(report_);
  }

 private:
  absl::StatusOr<std::unique_ptr<LatencyProbe>> Probe(int64_t prefill, int64_t decode, int streams) {
    RaisePeaks(pool_.threads(), &report_.peaks);
    return LatencyProbe::Create(plan_, pool_,
                                {.prefill = prefill, .decode = decode, .streams = streams, .profile = true, .cache_type = options_.cache_type});
  }

  absl::Status Prefill(int64_t n, bool keep_ops) {
    NIBBLE_ASSIGN_OR_RETURN(const auto probe, Probe(n, 0, 1));
    probe->session().ClearProfile();
    std::vector<double> seconds(options_.rounds);
    for (double& s : seconds) {
      NIBBLE_ASSIGN_OR_RETURN(s, probe->PrefillSeconds());
    }
    report_.speeds.push_back(MakeSpeed(absl::StrCat("prefill/", n), seconds, n));
    if (keep_ops) report_.prefill_ops = Ops(probe->session(), options_.rounds, static_cast<double>(n) / 2);
    return absl::OkStatus();
  }

  absl::Status Decode(const std::string& name, int64_t depth, int streams, bool keep_ops) {
    NIBBLE_ASSIGN_OR_RETURN(const auto probe, Probe(depth, options_.decode, streams));
    probe->session().ClearProfile();
    std::vector<double> seconds(options_.rounds), shares;
    if (streams == 1 && bandwidth_ == nullptr) bandwidth_ = std::make_unique<kernels::BandwidthProbe>(pool_.threads());
    double before = streams == 1 ? bandwidth_->Pass() : 0;
    for (double& s : seconds) {
      NIBBLE_ASSIGN_OR_RETURN(s, probe->DecodeSeconds());
      if (streams > 1) continue;
      const double after = bandwidth_->Pass(), rate = static_cast<double>(options_.decode) * report_.decode_bytes / s * 1e-9;
      shares.push_back(2 * rate / (before + after));
      before = after;
    }
    Speed speed = MakeSpeed(name, seconds, options_.decode * streams);
    if (!shares.empty()) {
      const Spread share = SpreadOf(shares);
      speed.bandwidth_share = share.mean;
      speed.share_stderr = ErrorOfMean(share, shares.size());
    }
    report_.speeds.push_back(std::move(speed));
    if (keep_ops) {
      report_.decode_ops =
          Ops(probe->session(), options_.rounds * static_cast<double>(options_.decode), static_cast<double>(depth) + static_cast<double>(options_.decode) / 2);
    }
    return absl::OkStatus();
  }

  // The profile of `passes` passes, by name. `context`: positions that a token
  // attends to on average.
  std::vector<OpSpeed> Ops(const Session& session, double passes, double context) const {
    std::vector<OpSpeed> ops;
    const auto entry = [&](const std::string& name) -> OpSpeed& {
      for (OpSpeed& op : ops) {
        if (op.name == name) return op;
      }
      return ops.emplace_back(OpSpeed{.name = name});
    };
    const auto add_linear = [&](OpSpeed& op, const kernels::Linear& linear, const StepProfile& profile) {
      op.bytes += static_cast<double>(linear.weight_bytes() * profile.calls) / passes;
      op.ops += LinearOps(linear, static_cast<double>(profile.tokens)) / passes;
      op.products = ProductsOf(linear);
    };
    for (size_t i = 0; i < plan_.steps().size(); ++i) {
      const PlanStep& step = plan_.steps()[i];
      const StepProfile& profile = session.profile()[i];
      OpSpeed& op = entry(ShortName(step));
      op.seconds += profile.seconds / passes;
      if (step.kind == PlanStep::Kind::kLinear) add_linear(op, *plan_.linears()[step.linear], profile);
      if (step.kind == PlanStep::Kind::kAttention) {
        const double width = static_cast<double>(step.op.head_dim), tokens = static_cast<double>(profile.tokens) / passes;
        op.ops += 4 * static_cast<double>(step.op.heads) * width * context * tokens;
        const CacheSchemes schemes = CacheSchemesOf(step.op, options_.cache_type);
        const int bits = CacheBits(CacheTypeOf(schemes.keys)) + CacheBits(CacheTypeOf(schemes.values));
        op.bytes += static_cast<double>(step.op.kv_heads) * width * context * bits / 8 * static_cast<double>(profile.calls) / passes;
        if (Attention::ReadsPairs(step.op, schemes, plan_.table())) op.products = Products::kBf16;
      }
    }
    OpSpeed& head = entry("head");
    head.seconds = session.profile().back().seconds / passes;
    add_linear(head, plan_.head(), session.profile().back());
    std::stable_sort(ops.begin(), ops.end(), [](const OpSpeed& a, const OpSpeed& b) { return a.seconds > b.seconds; });
    return ops;
  }

  const Plan& plan_;
  ThreadPool& pool_;
  const SpeedOptions& options_;
  SpeedReport report_;
  std::unique_ptr<kernels::BandwidthProbe> bandwidth_;
};

}  // namespace

double RooflineSeconds(const OpSpeed& op, const MachinePeaks& peaks) {
  const double peak = op.products == Products::kBytes  ? peaks.byte_gop_s
                      : op.products == Products::kBf16 ? peaks.bf16_gflop_s
                                                       : peaks.fma_gflop_s;
  return std::max(op.bytes / peaks.read_gb_s, op.ops / peak) * 1e-9;
}

absl::StatusOr<SpeedReport> MeasureSpeed(const Plan& plan, ThreadPool& pool, const SpeedOptions& options) {
  if (options.rounds < 2 || options.decode < 1) return absl::InvalidArgumentError("speed needs 2 rounds or more and 1 decoded token or more");
  return SpeedRun(plan, pool, options).Run();
}

}  // namespace nibble::eval
