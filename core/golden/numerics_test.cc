// Rounding to 16-bit floats against PyTorch, and integer quantization of
// weights and activations against torchao, all to the bit.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/golden/golden_testing.h"
#include "core/kernels/kernel_table.h"
#include "core/quant/encoded.h"
#include "core/quant/integer_grid.h"

namespace nibble {
namespace {

// torchao's eps: a scale is never below fp32's machine epsilon.
constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

class NumericsGolden : public GoldenTest {
 protected:
  NumericsGolden() : GoldenTest("numerics.safetensors") {}

  // Rounds every input and expects the golden bits; any NaN equals any other.
  void ExpectRounded(const std::string& name, uint16_t (*round)(float), float (*widen)(uint16_t)) const {
    const Tensor input = Golden("round.input_f32"), expected = Golden(name);
    ASSERT_EQ(input.elements(), expected.elements());
    for (int64_t i = 0; i < input.elements(); ++i) {
      const uint16_t want = expected.as<uint16_t>()[i], got = round(input.as<float>()[i]);
      if (std::isnan(widen(want)) && std::isnan(widen(got))) continue;
      EXPECT_EQ(got, want) << name << " of element " << i << ", " << input.as<float>()[i];
    }
  }
};

TEST_F(NumericsGolden, RoundsToBf16) { ExpectRounded("round.bf16", FloatToBf16, Bf16ToFloat); }
TEST_F(NumericsGolden, RoundsToFp16) { ExpectRounded("round.f16", FloatToFp16, Fp16ToFloat); }

struct Rule {
  const char* name;  // in the golden tensors
  bool asymmetric;
  QuantScheme::Divisor divisor;
};

constexpr Rule kSymmetric = {"sym", false, QuantScheme::HALF_RANGE};
constexpr Rule kNoClipping = {"symnc", false, QuantScheme::NO_CLIPPING};
constexpr Rule kAsymmetric = {"asym", true, QuantScheme::MAX_CODE};

QuantScheme Scheme(int bits, const Rule& rule, QuantScheme::Granularity per, int group = 0) {
  QuantScheme scheme;
  scheme.set_format(absl::StrCat("int", bits));
  scheme.set_per(per);
  if (group > 0) scheme.set_group_size(group);
  scheme.set_asymmetric(rule.asymmetric);
  scheme.set_divisor(rule.divisor);
  scheme.set_scale_floor(kEpsilon);
  return scheme;
}

// A quantized matrix: codes and zeros in the signed domain.
struct Quantized {
  std::vector<float> scales, decoded;
  std::vector<int32_t> zeros;
  std::vector<int8_t> codes;
};

Quantized Unpack(const EncodedTensor& tensor) {
  const CodeView view = AsIntegers(tensor).value();
  const int32_t half = 1 << (view.bits - 1);
  Quantized result;
  std::vector<uint8_t> codes(view.cols);
  for (int64_t r = 0; r < view.rows; ++r) {
    for (int64_t g = 0; g < view.groups; ++g) {
      result.scales.push_back(view.scale(r, g));
      result.zeros.push_back(view.zero(r, g) - half);
    }
    view.UnpackCodes(r, absl::MakeSpan(codes));
    for (const uint8_t code : codes) result.codes.push_back(static_cast<int8_t>(code - half));
  }
  result.decoded = Decode(tensor);
  return result;
}

class TorchaoGolden : public NumericsGolden {
 protected:
  template <typename T>
  std::vector<T> Values(const std::string& name) const {
    const Tensor tensor = Golden(name);
    return {tensor.as<T>().begin(), tensor.as<T>().end()};
  }

  void ExpectGolden(const std::string& prefix, const Quantized& got) const {
    EXPECT_EQ(got.scales, Values<float>(prefix + ".scale")) << prefix;
    EXPECT_EQ(got.zeros, Values<int32_t>(prefix + ".zero")) << prefix;
    EXPECT_EQ(got.codes, Values<int8_t>(prefix + ".q")) << prefix;
    EXPECT_EQ(got.decoded, Values<float>(prefix + ".decoded")) << prefix;
  }

  void ExpectEncoded(const std::string& prefix, const QuantScheme& scheme, const Tensor& input) const {
    ASSERT_OK_AND_ASSIGN(const EncodedTensor encoded, Encode(scheme, input.shape(), input.as<float>()));
    ExpectGolden(prefix, Unpack(encoded));
  }
};

TEST_F(TorchaoGolden, Weights) {
  const Tensor input = Golden("ao.weight_f32");
  for (const int bits : {4, 8}) {
    for (const int group : {32, 64, 256}) {
      for (const Rule& rule : {kSymmetric, kNoClipping, kAsymmetric}) {
        const std::string prefix = absl::StrCat("ao.w", bits, ".g", group, ".", rule.name);
        ExpectEncoded(prefix, Scheme(bits, rule, QuantScheme::PER_GROUP, group), input);
        if (group == input.dim(1)) ExpectEncoded(prefix, Scheme(bits, rule, QuantScheme::PER_ROW), input);
      }
    }
  }
}

TEST_F(TorchaoGolden, ActivationsPerToken) {
  const Tensor input = Golden("ao.act_f32");
  for (const Rule& rule : {kSymmetric, kAsymmetric}) {
    const std::string prefix = absl::StrCat("ao.a8.token.", rule.name);
    ExpectEncoded(prefix, Scheme(8, rule, QuantScheme::PER_ROW), input);
    std::vector<float> values = ToFloats(input);
    ASSERT_OK(FakeQuantizeRows(Scheme(8, rule, QuantScheme::PER_TOKEN), input.dim(0), input.dim(1), values.data()));
    EXPECT_EQ(values, Values<float>(prefix + ".decoded")) << prefix;
  }
}

Quantized QuantizeTokens(const kernels::KernelTable& table, const kernels::ActivationGrid& grid, const Tensor& input) {
  const int64_t tokens = input.dim(0), n = input.dim(1);
  Quantized result;
  result.scales.resize(tokens);
  result.zeros.resize(tokens);
  result.codes.resize(tokens * n);
  for (int64_t t = 0; t < tokens; ++t) {
    int8_t* codes = result.codes.data() + t * n;
    table.quantize_token(grid, input.as<float>().data() + t * n, n, codes, &result.scales[t], &result.zeros[t]);
    for (int64_t i = 0; i < n; ++i) {
      result.decoded.push_back(result.scales[t] * static_cast<float>(codes[i] - result.zeros[t]));
    }
  }
  return result;
}

TEST_F(TorchaoGolden, ActivationsPerTokenOnEveryTable) {
  const Tensor input = Golden("ao.act_f32");
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    SCOPED_TRACE(table->name);
    const kernels::ActivationGrid symmetric{.bits = 8, .asymmetric = false, .divisor = 127.5f, .scale_floor = kEpsilon};
    ExpectGolden("ao.a8.token.sym", QuantizeTokens(*table, symmetric, input));
    const kernels::ActivationGrid asymmetric{.bits = 8, .asymmetric = true, .scale_floor = kEpsilon};
    ExpectGolden("ao.a8.token.asym", QuantizeTokens(*table, asymmetric, input));
  }
}

}  // namespace
}  // namespace nibble
