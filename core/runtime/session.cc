#include "core/runtime/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/kernels/blas.h"

namespace nibble {
namespace {

// Query rows that attend together: their scores fit a core's cache at usual
// context lengths.
constexpr int64_t kQueryBlock = 64;

const PlanStep* FindRope(const Plan& plan) {
  for (const PlanStep& step : plan.steps()) {
    if (step.kind == PlanStep::Kind::kRope) return &step;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const Plan& plan, ThreadPool& pool, const SessionOptions& options) {
  if (options.streams < 1 || options.max_positions < 1) {
    return absl::InvalidArgumentError("a session needs at least one stream and one position");
  }
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
    : plan_(plan), pool_(pool), options_(options), positions_(options.streams, 0) {
  for (const int64_t width : plan.slot_widths()) {
    arena_.emplace_back(width * std::min<int64_t>(kChunkTokens, options.max_positions * options.streams));
    arena_floats_ += static_cast<int64_t>(arena_.back().size());
  }
  int64_t cache = 0;
  for (const ir::Op& attention : plan.attentions()) {
    cache_offsets_.push_back(cache);
    cache += options.streams * attention.kv_heads * options.max_positions * attention.head_dim;
  }
  keys_.resize(cache);
  values_.resize(cache);
  if (const PlanStep* rope = FindRope(plan)) {
    const auto& frequencies = rope->op.inverse_frequencies;
    for (int64_t p = 0; p < options.max_positions; ++p) {
      for (const double f : frequencies) {
        rope_cos_.push_back(static_cast<float>(std::cos(static_cast<double>(p) * f)));
        rope_sin_.push_back(static_cast<float>(std::sin(static_cast<double>(p) * f)));
      }
    }
  }
  scores_.resize(pool.threads());
}

void Session::Rewind(int stream, int64_t position) {
  NIBBLE_CHECK(position >= 0 && position <= positions_[stream]);
  positions_[stream] = position;
}

int64_t Session::Plane(int cache, int stream, int64_t kv_head) const {
  const ir::Op& op = plan_.attentions()[cache];
  return cache_offsets_[cache] + (stream * op.kv_heads + kv_head) * options_.max_positions * op.head_dim;
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
    for (const int32_t token : segment.tokens) {
      if (token < 0 || token >= plan_.embedding().rows()) {
        return absl::InvalidArgumentError(absl::StrCat("token ", token, " is outside the vocabulary of ", plan_.embedding().rows()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Session::Forward(absl::Span<const Segment> segments, std::vector<float>* hidden) {
  NIBBLE_RETURN_IF_ERROR(CheckSegments(segments));
  if (hidden != nullptr) hidden->clear();
  const int64_t capacity = std::min<int64_t>(kChunkTokens, options_.max_positions * options_.streams);
  std::vector<int32_t> tokens;
  std::vector<Run> runs;
  const auto flush = [&]() -> absl::Status {
    if (tokens.empty()) return absl::OkStatus();
    NIBBLE_RETURN_IF_ERROR(RunChunk(tokens, runs));
    if (hidden != nullptr) {
      const float* rows = Slot(plan_.final_slot());
      hidden->insert(hidden->end(), rows, rows + static_cast<int64_t>(tokens.size()) * plan_.hidden_size());
    }
    tokens.clear();
    runs.clear();
    return absl::OkStatus();
  };
  for (const Segment& segment : segments) {
    absl::Span<const int32_t> rest = segment.tokens;
    while (!rest.empty()) {
      const int64_t room = capacity - static_cast<int64_t>(tokens.size());
      const auto part = rest.subspan(0, std::min<int64_t>(room, rest.size()));
      const int64_t count = static_cast<int64_t>(part.size());
      runs.push_back({segment.stream, positions_[segment.stream], static_cast<int64_t>(tokens.size()), count});
      tokens.insert(tokens.end(), part.begin(), part.end());
      positions_[segment.stream] += count;
      rest.remove_prefix(part.size());
      if (static_cast<int64_t>(tokens.size()) == capacity) NIBBLE_RETURN_IF_ERROR(flush());
    }
  }
  return flush();
}

absl::Status Session::RunChunk(absl::Span<const int32_t> tokens, absl::Span<const Run> runs) {
  prepared_value_ = -1;
  for (const PlanStep& step : plan_.steps()) NIBBLE_RETURN_IF_ERROR(RunStep(step, tokens, runs));
  return absl::OkStatus();
}

absl::Status Session::RunStep(const PlanStep& step, absl::Span<const int32_t> tokens, absl::Span<const Run> runs) {
  const int64_t count = static_cast<int64_t>(tokens.size());
  const int64_t width = plan_.slot_widths()[step.output];
  const kernels::KernelTable& table = plan_.table();
  float* y = Slot(step.output);
  const float* a = step.inputs.empty() ? nullptr : Slot(step.inputs[0]);
  const float* b = step.inputs.size() < 2 ? nullptr : Slot(step.inputs[1]);
  switch (step.kind) {
    case PlanStep::Kind::kEmbed:
      Embed(step, tokens);
      break;
    case PlanStep::Kind::kRmsNorm: {
      const float* gain = plan_.gains()[step.gain].data();
      pool_.ParallelFor(count, [&](int64_t t, int) { table.rms_norm(a + t * width, gain, width, step.op.eps, y + t * width); });
      break;
    }
    case PlanStep::Kind::kLinear:
      return RunLinear(step, count);
    case PlanStep::Kind::kRope:
      Rope(step, runs);
      break;
    case PlanStep::Kind::kAttention:
      Attention(step, runs);
      break;
    case PlanStep::Kind::kSilu:
      pool_.ParallelFor(count, [&](int64_t t, int) {
        for (int64_t i = t * width; i < (t + 1) * width; ++i) y[i] = a[i] / (1.0f + std::exp(-a[i]));
      });
      break;
    case PlanStep::Kind::kSiluMul:
      pool_.ParallelFor(count, [&](int64_t t, int) { table.silu_mul(a + t * width, b + t * width, width, y + t * width); });
      break;
    case PlanStep::Kind::kMul:
      for (int64_t i = 0; i < count * width; ++i) y[i] = a[i] * b[i];
      break;
    case PlanStep::Kind::kAdd:
      for (int64_t i = 0; i < count * width; ++i) y[i] = a[i] + b[i];
      break;
  }
  return absl::OkStatus();
}

void Session::Embed(const PlanStep& step, absl::Span<const int32_t> tokens) {
  float* y = Slot(step.output);
  const int64_t width = plan_.slot_widths()[step.output];
  for (size_t t = 0; t < tokens.size(); ++t) DecodeRows(plan_.embedding(), tokens[t], tokens[t] + 1, y + static_cast<int64_t>(t) * width);
}

absl::Status Session::RunLinear(const PlanStep& step, int64_t tokens) {
  const kernels::Linear& linear = *plan_.linears()[step.linear];
  const ir::ValueId value = step.op.inputs[0];
  if (value != prepared_value_ || !(linear.input_form() == *prepared_form_)) {
    NIBBLE_RETURN_IF_ERROR(Annotate(input_.Prepare(linear.input_form(), plan_.table(), Slot(step.inputs[0]), tokens, pool_), step.op.name));
    prepared_value_ = value;
    prepared_form_ = &linear.input_form();
  }
  return Annotate(linear.Multiply(input_, Slot(step.output), plan_.slot_widths()[step.output], pool_), step.op.name);
}

void Session::Rope(const PlanStep& step, absl::Span<const Run> runs) {
  const float* x = Slot(step.inputs[0]);
  float* y = Slot(step.output);
  const int64_t width = plan_.slot_widths()[step.output], d = step.op.head_dim, half = d / 2;
  for (const Run& run : runs) {
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
    });
  }
}

void Session::StoreKeysAndValues(const PlanStep& step, absl::Span<const Run> runs) {
  const int64_t d = step.op.head_dim, width = step.op.kv_heads * d;
  const float* k = Slot(step.inputs[1]);
  const float* v = Slot(step.inputs[2]);
  for (const Run& run : runs) {
    for (int64_t h = 0; h < step.op.kv_heads; ++h) {
      const int64_t plane = Plane(step.cache, run.stream, h);
      for (int64_t t = 0; t < run.count; ++t) {
        const int64_t from = (run.begin + t) * width + h * d, to = plane + (run.position + t) * d;
        std::memcpy(&keys_[to], k + from, d * sizeof(float));
        std::memcpy(&values_[to], v + from, d * sizeof(float));
      }
    }
  }
}

void Session::Attention(const PlanStep& step, absl::Span<const Run> runs) {
  StoreKeysAndValues(step, runs);
  struct Task {
    const Run* run;
    int64_t head, first, count;
  };
  std::vector<Task> tasks;
  for (const Run& run : runs) {
    for (int64_t h = 0; h < step.op.heads; ++h) {
      for (int64_t t = 0; t < run.count; t += kQueryBlock) tasks.push_back({&run, h, t, std::min(kQueryBlock, run.count - t)});
    }
  }
  pool_.ParallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t i, int worker) {
    const Task& task = tasks[i];
    AttendBlock(step, *task.run, task.head, task.first, task.count, worker);
  });
}

// One head, `count` query rows from row `first` of the run: scores against all
// earlier keys, causal mask, softmax, weighted sum of values.
void Session::AttendBlock(const PlanStep& step, const Run& run, int64_t head, int64_t first, int64_t count, int worker) {
  const ir::Op& op = step.op;
  const int64_t d = op.head_dim, width = op.heads * d;
  const int64_t plane = Plane(step.cache, run.stream, head / (op.heads / op.kv_heads));
  const float* q = Slot(step.inputs[0]) + (run.begin + first) * width + head * d;
  float* out = Slot(step.output) + (run.begin + first) * width + head * d;
  const int64_t start = run.position + first;  // position of the first query
  const int64_t window = op.sliding_window.value_or(options_.max_positions);
  const int64_t oldest = std::max<int64_t>(0, start + 1 - window);
  const int64_t keys = start + count - oldest;
  std::vector<float>& scores = scores_[worker];
  if (static_cast<int64_t>(scores.size()) < count * keys) scores.resize(count * keys);
  const float* k = keys_.data() + plane + oldest * d;
  const float* v = values_.data() + plane + oldest * d;
  if (count == 1) return AttendOne(step, q, k, v, 0, keys, scores.data(), out);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  kernels::Sgemm(false, /*transpose_b=*/true, count, keys, d, scale, q, width, k, d, 0.0f, scores.data(), keys);
  for (int64_t t = 0; t < count; ++t) {
    float* row = scores.data() + t * keys;
    const int64_t end = start + t + 1 - oldest;
    const int64_t begin = std::max<int64_t>(0, end - window);
    plan_.table().softmax(row + begin, end - begin);
    std::fill(row, row + begin, 0.0f);
    std::fill(row + end, row + keys, 0.0f);
  }
  kernels::Sgemm(false, /*transpose_b=*/false, count, d, keys, 1.0f, scores.data(), keys, v, d, 0.0f, out, width);
}

void Session::AttendOne(const PlanStep& step, const float* q, const float* keys, const float* values, int64_t begin, int64_t end,
                        float* scores, float* out) const {
  const int64_t d = step.op.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const kernels::KernelTable& table = plan_.table();
  for (int64_t i = begin; i < end; ++i) scores[i] = scale * table.dot(q, keys + i * d, d);
  table.softmax(scores + begin, end - begin);
  std::fill(out, out + d, 0.0f);
  for (int64_t i = begin; i < end; ++i) table.axpy(scores[i], values + i * d, d, out);
}

absl::Status Session::Logits(const float* hidden, int64_t count, float* logits) {
  kernels::PreparedInput input;
  NIBBLE_RETURN_IF_ERROR(input.Prepare(plan_.head().input_form(), plan_.table(), hidden, count, pool_));
  return plan_.head().Multiply(input, logits, plan_.vocab_size(), pool_);
}

}  // namespace nibble
