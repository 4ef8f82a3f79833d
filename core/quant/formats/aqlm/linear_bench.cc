// Times products with aqlm weights on random codes: the format's own beside decoding
// (what a format without kernels runs) and bf16 weights.
//   bazel run -c opt //core/quant/formats/aqlm:linear_bench -- [threads]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/kernels/linear.h"
#include "core/quant/formats/aqlm/additive.h"

namespace nibble::additive {
namespace {

using kernels::Linear;

EncodedTensor RandomTensor(const QuantScheme& scheme, int64_t rows, int64_t cols) {
  Rng rng(1);
  AdditiveTensor tensor = EmptyOf(scheme, rows, cols);
  for (uint16_t& code : tensor.codes) code = static_cast<uint16_t>(rng.Below(tensor.words_per_codebook()));
  for (float& w : tensor.words) w = rng.Normal() * 0.02f;
  std::fill(tensor.scales.begin(), tensor.scales.end(), 1.0f);
  auto packed = Pack(scheme, {rows, cols}, tensor);
  NIBBLE_CHECK(packed.ok());
  return *std::move(packed);
}

// The least microseconds of 30 runs of `run`.
template <typename Run>
double Microseconds(const Run& run) {
  double best = 1e30;
  for (int i = 0; i < 30; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double TimeLinear(const EncodedTensor& weight, const kernels::KernelTable& table, const std::vector<float>& x, int64_t tokens, ThreadPool& pool) {
  const auto linear = Linear::Create(weight, std::nullopt, table);
  NIBBLE_CHECK(linear.ok());
  kernels::PreparedInput input;
  NIBBLE_CHECK_OK(input.Prepare((*linear)->input_form(), table, x.data(), tokens, pool));
  std::vector<float> y(tokens * weight.rows());
  return Microseconds([&] { NIBBLE_CHECK_OK((*linear)->Multiply(input, y.data(), weight.rows(), pool)); });
}

void Run(int threads) {
  ThreadPool pool(threads);
  const auto table = kernels::ChooseTable();
  NIBBLE_CHECK(table.ok());
  std::printf("%d threads, %s; microseconds a product\n%-10s %-12s %7s %10s %10s %10s\n", threads, std::string((*table)->name).c_str(), "codes", "shape", "tokens", "own",
              "decoded", "bf16");
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{576, 576}, {1536, 576}, {576, 1536}, {8192, 2048}}) {
    std::vector<float> x(32 * cols, 0.5f);
    const auto bf16 = Encode(FloatScheme("bf16"), {rows, cols}, std::vector<float>(rows * cols, 0.1f));
    NIBBLE_CHECK(bf16.ok());
    for (const auto& [books, bits] : {std::pair{2, 8}, {2, 6}, {1, 16}}) {
      const EncodedTensor weight = RandomTensor(SchemeOf(books, bits, 8), rows, cols);
      for (const int64_t tokens : {1, 2, 4, 16, 32}) {
        const double own = TimeLinear(weight, **table, x, tokens, pool);
        kernels::PreparedInput input;
        NIBBLE_CHECK_OK(input.Prepare({.cols = cols}, **table, x.data(), tokens, pool));
        std::vector<float> y(tokens * rows);
        const double decoded = Microseconds([&] {
          kernels::MultiplyDecoded(input, rows, cols, **table, [&](int64_t begin, int64_t end, float* out) { DecodeRows(weight, begin, end, out); },
                                   y.data(), rows, pool);
        });
        const double plain = TimeLinear(*bf16, **table, x, tokens, pool);
        std::printf("%dx%-8d %5dx%-6d %7d %10.1f %10.1f %10.1f\n", books, bits, static_cast<int>(rows), static_cast<int>(cols), static_cast<int>(tokens),
                    own, decoded, plain);
      }
    }
  }
}

}  // namespace
}  // namespace nibble::additive

int main(int argc, char** argv) { nibble::additive::Run(argc > 1 ? std::atoi(argv[1]) : 1); }
