// Microbenchmarks of the kernels on every table that this machine runs:
// products of one token (bytes_per_second: packed weights read) and of many
// (items_per_second: operations, two for each multiply-add), what prepares
// activations, and the machine's peaks.
//
//   bazel run //core/kernels:kernel_bench -- --benchmark_filter=avx2/.*int4

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/kernels/linear.h"
#include "core/kernels/machine.h"
#include "core/quant/encoded.h"
#include "core/tensor/hadamard.h"

namespace nibble::kernels {
namespace {

constexpr int64_t kPrefillTokens = 512;
// Weights of a decode benchmark are used in turn and exceed every cache.
constexpr int64_t kDecodeBytes = 160000000;

QuantScheme IntegerScheme(const char* format, QuantScheme::Granularity per, int group) {
  QuantScheme scheme;
  scheme.set_format(format);
  scheme.set_per(per);
  if (per == QuantScheme::PER_GROUP) scheme.set_group_size(group), scheme.set_scale_type(QuantScheme::FP16);
  if (per == QuantScheme::PER_TOKEN) {
    scheme.set_dynamic(true);
    scheme.set_asymmetric(true);
  }
  return scheme;
}

std::vector<float> Random(int64_t n) {
  Rng rng(1);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

struct Case {
  const char* name;
  QuantScheme weight;
  std::optional<QuantScheme> activation;
};

std::vector<Case> Cases() {
  const QuantScheme a8 = IntegerScheme("int8", QuantScheme::PER_TOKEN, 0);
  const auto row = [](const char* format) { return IntegerScheme(format, QuantScheme::PER_ROW, 0); };
  const auto grouped = [](const char* format) { return IntegerScheme(format, QuantScheme::PER_GROUP, 32); };
  return {{"fp32", FloatScheme("fp32"), std::nullopt}, {"fp16", FloatScheme("fp16"), std::nullopt},
          {"bf16", FloatScheme("bf16"), std::nullopt}, {"bf16_abf16", FloatScheme("bf16"), FloatScheme("bf16")},
          {"int8_row", row("int8"), std::nullopt},     {"int4_g32", grouped("int4"), std::nullopt},
          {"int2_g32", grouped("int2"), std::nullopt}, {"int8_row_a8", row("int8"), a8},
          {"int4_g32_a8", grouped("int4"), a8},        {"int4_row_a8", row("int4"), a8},
          {"int2_g32_a8", grouped("int2"), a8}};
}

// Copies of one encoded weight as linears, `bytes` of them together or one.
struct Weights {
  Weights(const Case& c, int64_t rows, int64_t cols, const KernelTable& table, int64_t bytes) {
    auto encoded = Encode(c.weight, {rows, cols}, Random(rows * cols));
    NIBBLE_CHECK_OK(encoded.status());
    int64_t held = 0;
    do {
      tensors.push_back(std::make_unique<EncodedTensor>(*encoded));
      if (IsFloatFormat(c.weight)) CopyValues(*tensors.back());  // float weights are borrowed
      auto linear = Linear::Create(*tensors.back(), c.activation, table);
      NIBBLE_CHECK_OK(linear.status());
      held += (*linear)->weight_bytes();
      linears.push_back(std::move(*linear));
    } while (held < bytes);
  }

  static void CopyValues(EncodedTensor& tensor) {
    const Tensor& values = tensor.buffer("values");
    Tensor copy = Tensor::Zeros(values.dtype(), values.shape());
    if (values.dtype() == DType::kF32) std::copy_n(values.as<float>().begin(), values.elements(), copy.mutable_as<float>().begin());
    else std::copy_n(values.as<uint16_t>().begin(), values.elements(), copy.mutable_as<uint16_t>().begin());
    tensor.buffers["values"] = copy;
  }

  std::vector<std::unique_ptr<EncodedTensor>> tensors;
  std::vector<std::unique_ptr<Linear>> linears;
};

void RunProduct(benchmark::State& state, const Case& c, const KernelTable& table, int64_t rows, int64_t cols, int64_t tokens) {
  ThreadPool pool(AvailableCpus());
  const Weights weights(c, rows, cols, table, tokens == 1 ? kDecodeBytes : 0);
  const std::vector<float> x = Random(tokens * cols);
  std::vector<float> y(tokens * rows);
  PreparedInput input;
  size_t next = 0;
  for (auto _ : state) {
    const Linear& linear = *weights.linears[next++ % weights.linears.size()];
    NIBBLE_CHECK_OK(input.Prepare(linear.input_form(), table, x.data(), tokens, pool));
    NIBBLE_CHECK_OK(linear.Multiply(input, y.data(), rows, pool));
  }
  state.SetBytesProcessed(state.iterations() * weights.linears.front()->weight_bytes());
  state.SetItemsProcessed(state.iterations() * 2 * rows * cols * tokens);
}

void RunQuantizeToken(benchmark::State& state, const KernelTable& table) {
  const std::vector<float> x = Random(8192);
  std::vector<int8_t> codes(x.size());
  float scale;
  int32_t zero;
  for (auto _ : state) {
    table.quantize_token(ActivationGrid{}, x.data(), static_cast<int64_t>(x.size()), codes.data(), &scale, &zero);
    benchmark::DoNotOptimize(codes.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

void RunHadamard(benchmark::State& state, const KernelTable& table, int64_t size) {
  const Hadamard hadamard = Hadamard::Create(size).value();
  std::vector<float> x = Random(size), scratch(size);
  for (auto _ : state) {
    table.hadamard(hadamard.signs().data(), hadamard.order(), hadamard.fast(), hadamard.scale(), x.data(), scratch.data());
    benchmark::DoNotOptimize(x.data());
  }
  state.SetItemsProcessed(state.iterations() * size);
}

void RunSiluMul(benchmark::State& state, const KernelTable& table) {
  const std::vector<float> gate = Random(8192), up = Random(8192);
  std::vector<float> out(gate.size());
  for (auto _ : state) {
    table.silu_mul(gate.data(), up.data(), static_cast<int64_t>(gate.size()), out.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(gate.size()));
}

void RunSoftmaxStep(benchmark::State& state, const KernelTable& table) {
  const std::vector<float> scores = Random(kPanelDepth);
  std::vector<float> x = scores;
  for (auto _ : state) {
    float max = -1e30f;
    x = scores;
    benchmark::DoNotOptimize(table.softmax_step(x.data(), kPanelDepth, &max));
  }
  state.SetItemsProcessed(state.iterations() * kPanelDepth);
}

// One thread's probes, as MeasureFmaPeak and MeasureBytePeak use them.
void RunProbes(benchmark::State& state, const KernelTable& table, bool bytes) {
  constexpr int64_t kRounds = 100000;
  for (auto _ : state) {
    if (bytes) benchmark::DoNotOptimize(table.probes.multiply_bytes(kRounds));
    else benchmark::DoNotOptimize(table.probes.multiply_adds(kRounds));
  }
  state.SetItemsProcessed(state.iterations() * kRounds * (bytes ? table.probes.byte_ops_per_round : table.probes.flops_per_round));
}

void RegisterProducts(const KernelTable& table) {
  for (const Case& c : Cases()) {
    for (const int64_t tokens : {int64_t{1}, kPrefillTokens}) {
      for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{8192, 2048}, {2048, 8192}}) {
        const std::string name = absl::StrCat(table.name, "/", tokens == 1 ? "decode/" : "prefill/", c.name, "/", rows, "x", cols);
        benchmark::RegisterBenchmark(name.c_str(), [c, &table, rows = rows, cols = cols, tokens](benchmark::State& state) {
          RunProduct(state, c, table, rows, cols, tokens);
        })->UseRealTime()->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

void RegisterTable(const KernelTable& table) {
  const auto add = [&](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(absl::StrCat(table.name, "/", name).c_str(), run);
  };
  add("peak_multiply_adds", [&table](benchmark::State& state) { RunProbes(state, table, false); });
  add("peak_byte_products", [&table](benchmark::State& state) { RunProbes(state, table, true); });
  add("quantize_token", [&table](benchmark::State& state) { RunQuantizeToken(state, table); });
  for (const int64_t size : {1536, 8192}) {
    add("hadamard/" + std::to_string(size), [&table, size](benchmark::State& state) { RunHadamard(state, table, size); });
  }
  add("silu_mul", [&table](benchmark::State& state) { RunSiluMul(state, table); });
  add("softmax_step", [&table](benchmark::State& state) { RunSoftmaxStep(state, table); });
  RegisterProducts(table);
}

}  // namespace
}  // namespace nibble::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const auto* table : nibble::kernels::AvailableTables()) nibble::kernels::RegisterTable(*table);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
