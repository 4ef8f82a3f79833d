// kernel_bench [threads] [table]: how fast this machine runs linears, table by
// table, beside what its memory and its multipliers give at best.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/kernels/linear.h"
#include "core/kernels/machine.h"
#include "core/quant/encoded.h"

namespace nibble::kernels {
namespace {

constexpr int64_t kPrefillTokens = 512;

double Seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

QuantScheme IntegerScheme(const char* format, QuantScheme::Granularity per, int group) {
  QuantScheme scheme;
  scheme.set_format(format);
  scheme.set_per(per);
  if (per == QuantScheme::PER_GROUP) scheme.set_group_size(group);
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

// Best seconds of one product, its input's preparation included. `copies`
// weights are used in turn, so that decoding cannot live in the cache.
double TimeProduct(const std::vector<std::unique_ptr<Linear>>& copies, const KernelTable& table, int64_t tokens,
                   ThreadPool& pool) {
  const Linear& first = *copies.front();
  const std::vector<float> x = Random(tokens * first.cols());
  std::vector<float> y(tokens * first.rows());
  PreparedInput input;
  const auto pass = [&] {
    for (const auto& linear : copies) {
      NIBBLE_CHECK_OK(input.Prepare(linear->input_form(), table, x.data(), tokens, pool));
      NIBBLE_CHECK_OK(linear->Multiply(input, y.data(), linear->rows(), pool));
    }
  };
  pass();
  double best = 1e30, spent = 0;
  while (spent < 0.4) {
    const double seconds = Seconds(pass);
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best / static_cast<double>(copies.size());
}

void RunCase(const Case& c, int64_t rows, int64_t cols, const KernelTable& table, ThreadPool& pool) {
  auto weight = Encode(c.weight, {rows, cols}, Random(rows * cols), &pool);
  NIBBLE_CHECK(weight.ok());
  std::vector<std::unique_ptr<Linear>> copies;
  std::vector<EncodedTensor> tensors;
  for (int64_t bytes = 0; bytes < 160000000; bytes += copies.back()->weight_bytes()) {
    tensors.push_back(*weight);
    if (c.weight.format() == "bf16") {  // borrowed weights need bytes of their own
      Tensor copy = Tensor::Zeros(DType::kBF16, {rows, cols});
      const auto from = weight->buffer("values").as<uint16_t>();
      std::copy(from.begin(), from.end(), copy.mutable_as<uint16_t>().begin());
      tensors.back().buffers["values"] = copy;
    }
    auto linear = Linear::Create(tensors.back(), c.activation, table);
    NIBBLE_CHECK(linear.ok());
    copies.push_back(std::move(*linear));
  }
  const double decode = TimeProduct(copies, table, 1, pool);
  copies.resize(1);
  const double prefill = TimeProduct(copies, table, kPrefillTokens, pool);
  const double ops = 2.0 * static_cast<double>(rows * cols);
  std::printf("%-11s %-18s %5lldx%-5lld decode %8.1f us %6.1f GB/s   prefill %8.2f ms %8.1f Gop/s\n",
              table.name.c_str(), c.name, static_cast<long long>(rows), static_cast<long long>(cols), decode * 1e6,
              static_cast<double>(copies[0]->weight_bytes()) / decode * 1e-9, prefill * 1e3,
              ops * kPrefillTokens / prefill * 1e-9);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : AvailableCpus());
  const MachineInfo machine = DescribeMachine();
  std::printf("%s (%s), %d threads: read %.1f GB/s, multiply-add %.1f GFLOP/s\n", machine.cpu.c_str(),
              machine.features.c_str(), pool.threads(), MeasureReadBandwidth(pool.threads()),
              MeasureFmaPeak(pool.threads()));
  const QuantScheme a8 = IntegerScheme("int8", QuantScheme::PER_TOKEN, 0);
  const std::vector<Case> cases = {
      {"bf16", FloatScheme("bf16"), std::nullopt},
      {"int8 row", IntegerScheme("int8", QuantScheme::PER_ROW, 0), std::nullopt},
      {"int4 g32", IntegerScheme("int4", QuantScheme::PER_GROUP, 32), std::nullopt},
      {"int8 row x a8", IntegerScheme("int8", QuantScheme::PER_ROW, 0), a8},
      {"int4 g32 x a8", IntegerScheme("int4", QuantScheme::PER_GROUP, 32), a8},
      {"int4 row x a8", IntegerScheme("int4", QuantScheme::PER_ROW, 0), a8},
      {"int2 g32 x a8", IntegerScheme("int2", QuantScheme::PER_GROUP, 32), a8},
  };
  for (const KernelTable* table : AvailableTables()) {
    if (argc > 2 ? table->name != argv[2] : table->name == "portable") continue;
    for (const Case& c : cases) {
      RunCase(c, 2048, 2048, *table, pool);
      RunCase(c, 2048, 8192, *table, pool);
    }
  }
  return 0;
}

}  // namespace
}  // namespace nibble::kernels

int main(int argc, char** argv) { return nibble::kernels::Main(argc, argv); }
