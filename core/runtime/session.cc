#include "core/runtime/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/memory.h"
#include "core/base/status.h"

namespace nibble {
namespace {

const PlanStep* FindRope(const Plan& plan) {
  for (const PlanStep& step : plan.steps()) {
    if (step.kind == PlanStep::Kind::kRope) return &step;
  }
  return nullptr;
}

// What keys, values and rotary angles take, without the scales of quantized caches.
double LeastBytes(const Plan& plan, const SessionOptions& options) {
  double per_position = 0;  // of a stream
  for (const ir::Op& op : plan.attentions()) {
    const CacheSchemes schemes = CacheSchemesOf(op, options.cache_type);
    for (const QuantScheme& scheme : {schemes.keys, schemes.values}) {
      per_position += static_cast<double>(op.kv_heads * op.head_dim * CacheBits(CacheTypeOf(scheme))) / 8;
    }
  }
  const PlanStep* rope = FindRope(plan);
  const double angles = rope == nullptr ? 0 : 2.0 * sizeof(float) * static_cast<double>(rope->op.inverse_frequencies.size());
  return static_cast<double>(options.max_positions) * (per_position * options.streams + angles);
}

int64_t ChunkTokens(const Plan& plan) {
  const int64_t width = std::accumulate(plan.slot_widths().begin(), plan.slot_widths().end(), int64_t{1});
  return std::clamp(Session::kArenaBytes / (width * static_cast<int64_t>(sizeof(float))), Session::kLeastChunkTokens, Session::kMostChunkTokens);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const Plan& plan, ThreadPool& pool, const SessionOptions& options) {
  if (options.streams < 1 || options.max_positions < 1) {
    return absl::InvalidArgumentError("a session needs at least one stream and one position");
  }
  for (const ir::Op& op : plan.attentions()) {
    if (op.head_dim > kernels::kPanelDepth) {
      return absl::UnimplementedError(absl::StrCat(op.name, ": heads of ", op.head_dim, " channels; at most ", kernels::kPanelDepth));
    }
  }
  NIBBLE_RETURN_IF_ERROR(CheckMemory(absl::StrCat("a session of ", options.streams, " streams of ", options.max_positions, " positions"),
                                     LeastBytes(plan, options), "use fewer positions or streams"));
  if (const PlanStep* rope = FindRope(plan)) {
    for (const PlanStep& step : plan.steps()) {
      if (step.kind == PlanStep::Kind::kRope && step.op.inverse_frequencies != rope->op.inverse_frequencies) {
        return absl::UnimplementedError("rotary frequencies that differ between layers");
      }
    }
  }
  return std::unique_ptr<Session>(new Session(plan, pool, options));
}

Session::Session(const Plan& plan, ThreadPool& pool, const SessionOptions& options)
    : plan_(plan),
      pool_(pool),
      options_(options),
      chunk_tokens_(std::min(ChunkTokens(plan), options.max_positions * options.streams)),
      positions_(options.streams, 0) {
  int64_t floats = 0;
  for (const int64_t width : plan.slot_widths()) {
    slot_begins_.push_back(floats);
    const int64_t size = width * chunk_tokens_;
    floats += (size + 15) / 16 * 16;
  }
  arena_ = Tensor::Zeros(DType::kF32, {floats});
  arena_floats_ = arena_.mutable_as<float>().data();
  if (options.profile) profile_.resize(plan.steps().size() + 1);
  for (const ir::Op& op : plan.attentions()) {
    const CacheSchemes schemes = CacheSchemesOf(op, options.cache_type);
    const bool pairs = Attention::ReadsPairs(op, schemes, plan.table());
    caches_.emplace_back(schemes, options.streams, op.kv_heads, op.head_dim, options.max_positions, pairs);
    attentions_.emplace_back(op, plan.table());
  }
  if (const PlanStep* rope = FindRope(plan)) {
    const auto& frequencies = rope->op.inverse_frequencies;
    for (int64_t p = 0; p < options.max_positions; ++p) {
      for (const double f : frequencies) {
        rope_cos_.push_back(static_cast<float>(std::cos(static_cast<double>(p) * f)));
        rope_sin_.push_back(static_cast<float>(std::sin(static_cast<double>(p) * f)));
      }
    }
  }
}

int64_t Session::cache_bytes() const {
  int64_t bytes = 0;
  for (const KvCache& cache : caches_) bytes += cache.byte_size();
  return bytes;
}

void Session::Rewind(int stream, int64_t position) {
  NIBBLE_CHECK(position >= 0 && position <= positions_[stream]);
  positions_[stream] = position;
}

absl::Status Session::CheckSegments(absl::Span<const Segment> segments) const {
  std::vector<bool> seen(options_.streams, false);
  for (const Segment& segment : segments) {
    NIBBLE_CHECK(segment.stream >= 0 && segment.stream < options_.streams && !seen[segment.stream]);
    seen[segment.stream] = true;
    const int64_t end = positions_[segment.stream] + static_cast<int64_t>(segment.tokens.size());
    if (end > options_.max_positions) {
      return absl::OutOfRangeError(absl::StrCat("a sequence of ", end, " tokens does not fit the session's ", options_.max_positions,
                                                " positions"));
    }
    for (const int32_t token : segment.tokens) NIBBLE_RETURN_IF_ERROR(ir::CheckToken(token, plan_.embedding().rows()));
  }
  return absl::OkStatus();
}

absl::Status Session::Forward(absl::Span<const Segment> segments, std::vector<float>* hidden) {
  NIBBLE_RETURN_IF_ERROR(CheckSegments(segments));
  if (hidden != nullptr) hidden->clear();
  const auto begin = [&] {
    tokens_.clear();
    runs_.clear();
    wanted_.clear();
  };
  const auto flush = [&]() -> absl::Status {
    if (tokens_.empty()) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(RunChunk());
    const float* rows = Slot(plan_.final_slot());
    if (hidden != nullptr) hidden->insert(hidden->end(), rows, rows + rows_ * plan_.hidden_size());
    begin();
    return absl::OkStatus();
  };
  begin();  // a call that failed leaves its chunk
  for (const Segment& segment : segments) {
    absl::Span<const int32_t> rest = segment.tokens;
    const int64_t wanted = hidden == nullptr ? 0 : segment.wanted_count();
    while (!rest.empty()) {
      const int64_t room = chunk_tokens_ - static_cast<int64_t>(tokens_.size());
      const auto part = rest.subspan(0, std::min<int64_t>(room, rest.size()));
      const int64_t count = static_cast<int64_t>(part.size());
      const TokenRun run = {segment.stream, positions_[segment.stream], static_cast<int64_t>(tokens_.size()), count};
      runs_.push_back(run);
      const int64_t skipped = std::clamp<int64_t>(static_cast<int64_t>(rest.size()) - wanted, 0, count);
      if (skipped < count) wanted_.push_back({run.stream, run.position + skipped, run.begin + skipped, count - skipped});
      tokens_.insert(tokens_.end(), part.begin(), part.end());
      positions_[segment.stream] += count;
      rest.remove_prefix(part.size());
      if (static_cast<int64_t>(tokens_.size()) == chunk_tokens_) NIBBLE_RETURN_IF_ERROR(flush());
    }
  }
  return flush();
}

template <typename Work>
absl::Status Session::Profiled(size_t step, const int64_t& tokens, const Work& work) {
  if (profile_.empty()) return work();
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = work();
  profile_[step].seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ++profile_[step].calls;
  profile_[step].tokens += tokens;
  return status;
}

absl::Status Session::RunChunk() {
  prepared_value_ = -1;
  rows_ = static_cast<int64_t>(tokens_.size());
  for (size_t i = 0; i < plan_.steps().size() && rows_ > 0; ++i) {
    NIBBLE_RETURN_IF_ERROR(Profiled(i, rows_, [&] { return RunStep(plan_.steps()[i]); }));
  }
  return absl::OkStatus();
}

void Session::KeepWanted() {
  int64_t kept = 0;
  for (TokenRun& run : wanted_) {
    for (const int slot : plan_.late_slots()) {
      const int64_t width = plan_.slot_widths()[slot];
      const float* rows = Slot(slot) + run.begin * width;
      if (run.begin != kept) std::copy(rows, rows + run.count * width, Slot(slot) + kept * width);
    }
    run.begin = kept;
    kept += run.count;
  }
  runs_ = wanted_;
  rows_ = kept;
  prepared_value_ = -1;
}

absl::Status Session::RunStep(const PlanStep& step) {
  if (step.fused) return absl::OkStatus();
  const int64_t count = rows_;
  const int64_t width = plan_.slot_widths()[step.output];
  float* y = Slot(step.output);
  const float* a = step.inputs.empty() ? nullptr : Slot(step.inputs[0]);
  const float* b = step.inputs.size() < 2 ? nullptr : Slot(step.inputs[1]);
  switch (step.kind) {
    case PlanStep::Kind::kEmbed:
      Embed(step);
      break;
    case PlanStep::Kind::kRmsNorm:
    case PlanStep::Kind::kSiluMul:
      pool_.ParallelFor(count, [&](int64_t t, int) { MakeRow(step, t, y + t * width); });
      break;
    case PlanStep::Kind::kLinear:
      return RunLinear(step, count);
    case PlanStep::Kind::kRope:
      Rope(step);
      break;
    case PlanStep::Kind::kAttention:
      Attend(step);
      break;
    case PlanStep::Kind::kSilu:
      pool_.ParallelFor(count, [&](int64_t t, int) {
        for (int64_t i = t * width; i < (t + 1) * width; ++i) y[i] = a[i] / (1.0f + std::exp(-a[i]));
      });
      break;
    case PlanStep::Kind::kMul:
      pool_.ParallelFor(count, [&](int64_t t, int) {
        for (int64_t i = t * width; i < (t + 1) * width; ++i) y[i] = a[i] * b[i];
      });
      break;
    case PlanStep::Kind::kAdd:
      pool_.ParallelFor(count, [&](int64_t t, int) {
        for (int64_t i = t * width; i < (t + 1) * width; ++i) y[i] = a[i] + step.op.scale * b[i];
      });
      break;
    case PlanStep::Kind::kRotate:
      pool_.ParallelFor(count, [&](int64_t t, int) {
        if (y != a) std::copy_n(a + t * width, width, y + t * width);
        RotateRow(step, width, y + t * width);
      });
      break;
  }
  return absl::OkStatus();
}

void Session::Embed(const PlanStep& step) {
  float* y = Slot(step.output);
  const int64_t width = plan_.slot_widths()[step.output];
  pool_.ParallelFor(static_cast<int64_t>(tokens_.size()),
                    [&](int64_t t, int) { DecodeRows(plan_.embedding(), tokens_[t], tokens_[t] + 1, y + t * width); });
}

// One row of a norm or of silu(gate) * up.
void Session::MakeRow(const PlanStep& step, int64_t t, float* row) const {
  const int64_t width = plan_.slot_widths()[step.output];
  const float* a = Slot(step.inputs[0]) + t * width;
  if (step.kind == PlanStep::Kind::kRmsNorm) {
    plan_.table().rms_norm(a, plan_.gains()[step.gain].data(), width, step.op.eps, row);
  } else {
    plan_.table().silu_mul(a, Slot(step.inputs[1]) + t * width, width, row);
  }
  RotateRow(step, width, row);
}

void Session::RotateRow(const PlanStep& step, int64_t width, float* row) const {
  if (step.rotation == nullptr) return;
  const Hadamard& h = *step.rotation;
  static thread_local std::vector<float> scratch;
  scratch.resize(h.size());
  for (int64_t at = 0; at < width; at += h.size()) {
    plan_.table().hadamard(h.signs().data(), h.order(), h.fast(), h.scale(), row + at, scratch.data());
  }
}

absl::Status Session::RunLinear(const PlanStep& step, int64_t tokens) {
  const kernels::Linear& linear = *plan_.linears()[step.linear];
  const ir::ValueId value = step.op.inputs[0];
  if (value != prepared_value_ || !(linear.input_form() == *prepared_form_)) {
    if (step.producer >= 0) {
      const PlanStep& producer = plan_.steps()[step.producer];
      input_.PrepareRows(linear.input_form(), plan_.table(), [&](int64_t t, float* row) { MakeRow(producer, t, row); }, tokens, pool_);
    } else {
      NIBBLE_RETURN_IF_ERROR(
          Annotate(input_.Prepare(linear.input_form(), plan_.table(), Slot(step.inputs[0]), tokens, pool_), step.op.name));
    }
    prepared_value_ = value;
    prepared_form_ = &linear.input_form();
  }
  return Annotate(linear.Multiply(input_, Slot(step.output), plan_.slot_widths()[step.output], pool_), step.op.name);
}

void Session::Rope(const PlanStep& step) {
  const float* x = Slot(step.inputs[0]);
  float* y = Slot(step.output);
  const int64_t width = plan_.slot_widths()[step.output], d = step.op.head_dim, half = d / 2;
  for (const TokenRun& run : runs_) {
    pool_.ParallelFor(run.count, [&](int64_t t, int) {
      const float* cos = rope_cos_.data() + (run.position + t) * half;
      const float* sin = rope_sin_.data() + (run.position + t) * half;
      for (int64_t h = 0; h < step.op.heads; ++h) {
        const float* in = x + (run.begin + t) * width + h * d;
        float* out = y + (run.begin + t) * width + h * d;
        for (int64_t i = 0; i < half; ++i) {
          const float p = in[i], q = in[i + half];
          out[i] = p * cos[i] - q * sin[i];
          out[i + half] = q * cos[i] + p * sin[i];
        }
      }
      RotateRow(step, width, y + (run.begin + t) * width);
    });
  }
}

void Session::Attend(const PlanStep& step) {
  KvCache& cache = caches_[step.cache];
  const int64_t d = step.op.head_dim, width = step.op.kv_heads * d;
  const float* k = Slot(step.inputs[1]);
  const float* v = Slot(step.inputs[2]);
  pool_.ParallelFor(step.op.kv_heads, [&](int64_t h, int) {
    for (const TokenRun& run : runs_) {
      for (int64_t t = 0; t < run.count; ++t) {
        const int64_t at = (run.begin + t) * width + h * d;
        cache.Store(run.stream, h, run.position + t, k + at, v + at);
      }
    }
  });
  if (&step == &plan_.steps()[plan_.last_attention()]) KeepWanted();
  attentions_[step.cache].Run(cache, runs_, Slot(step.inputs[0]), Slot(step.output), pool_);
}

absl::Status Session::Logits(const float* hidden, int64_t count, float* logits) {
  return Profiled(plan_.steps().size(), count, [&]() -> absl::Status {
    NIBBLE_RETURN_IF_ERROR(head_input_.Prepare(plan_.head().input_form(), plan_.table(), hidden, count, pool_));
    return plan_.head().Multiply(head_input_, logits, plan_.vocab_size(), pool_);
  });
}

}  // namespace nibble
