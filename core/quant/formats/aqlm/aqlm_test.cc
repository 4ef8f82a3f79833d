#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/rng.h"
#include "core/base/testing.h"
#include "core/kernels/linear.h"
#include "core/quant/encoded.h"
#include "core/quant/formats/aqlm/additive.h"
#include "core/quant/formats/aqlm/aqlm.pb.h"
#include "core/quant/formats/aqlm/kmeans.h"
#include "core/quant/formats/aqlm/nearest.h"

namespace nibble::additive {
namespace {

std::vector<float> Gaussian(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = rng.Normal();
  return values;
}

double MeanSquare(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum / static_cast<double>(a.size());
}

// Two codebooks of two words for groups of two, by hand.
AdditiveTensor ByHand() {
  AdditiveTensor tensor = EmptyOf(SchemeOf(2, 1, 2), 2, 3);
  tensor.words = {1, 2, 3, 4, 0.5f, -0.5f, 8, -8};
  tensor.codes = {0, 1, 1, 0, 1, 1, 0, 0};
  tensor.scales = {2, 0.25f};
  return tensor;
}

TEST(Additive, AWeightIsAScaleTimesTheSumOfItsWords) {
  const AdditiveTensor tensor = ByHand();
  // Row 0: 2 (1 + 8), 2 (2 - 8), 2 (3 + .5); row 1: (3 + 8) / 4, (4 - 8) / 4, (1 + .5) / 4.
  EXPECT_EQ(tensor.Decode(), (std::vector<float>{18, -12, 7, 2.75f, -1, 0.375f}));
  EXPECT_EQ(tensor.Decode(/*scaled=*/false), (std::vector<float>{9, -6, 3.5f, 11, -4, 1.5f}));
}

TEST(Additive, CodesArePackedLeastSignificantBitFirst) {
  ASSERT_OK_AND_ASSIGN(const EncodedTensor packed, Pack(SchemeOf(2, 1, 2), {2, 3}, ByHand()));
  EXPECT_EQ(packed.buffer("codes").shape(), (Shape{2, 1}));
  EXPECT_EQ(packed.buffer("codes").bytes()[0], 0b0110);
  EXPECT_EQ(packed.buffer("codes").bytes()[1], 0b0011);
  EXPECT_EQ(Decode(packed), ByHand().Decode());
  for (const auto& [books, bits] : {std::pair{1, 16}, {3, 11}, {5, 7}, {2, 3}}) {
    AdditiveTensor tensor = EmptyOf(SchemeOf(books, bits, 4), 3, 21);
    Rng rng(bits);
    for (uint16_t& code : tensor.codes) code = static_cast<uint16_t>(rng.Below(tensor.words_per_codebook()));
    std::fill(tensor.scales.begin(), tensor.scales.end(), 1.0f);
    ASSERT_OK_AND_ASSIGN(const EncodedTensor encoded, Pack(SchemeOf(books, bits, 4), {3, 21}, tensor));
    EXPECT_EQ(encoded.buffer("codes").dim(1), (6 * books * bits + 7) / 8);
    EXPECT_EQ(Unpack(encoded).codes, tensor.codes);
  }
}

TEST(Additive, SizeCountsCodebooks) {
  // Codes 256 * 512 / 8 * 2 bytes, codebooks 2 * 256 * 8 * 2, scales 256 * 2.
  ASSERT_OK_AND_ASSIGN(const int64_t bytes, EncodedBytes(SchemeOf(2, 8, 8), {256, 512}));
  EXPECT_EQ(bytes, 256 * 512 / 8 * 2 + 8192 + 512);
  ASSERT_OK_AND_ASSIGN(const int64_t one, EncodedBytes(SchemeOf(1, 16, 8), {256, 512}));
  EXPECT_EQ(one, 256 * 512 / 8 * 2 + (1 << 20) + 512);
}

TEST(Additive, EnoughWordsForEveryGroupLoseNothing) {
  // 24 groups of halves, of which no rounding is asked but the scale's.
  Rng rng(3);
  std::vector<float> values(4 * 48);
  for (float& v : values) v = static_cast<float>(rng.Below(3)) - 1;
  for (int64_t r = 0; r < 4; ++r) values[r * 48] = 2;
  const EncodedTensor encoded = *Encode(SchemeOf(1, 5, 8), {4, 48}, values);
  EXPECT_LT(MeanSquare(Decode(encoded), values), 1e-6);
  EXPECT_GT(MeanSquare(Decode(*Encode(SchemeOf(1, 3, 8), {4, 48}, values)), values), 1e-2);
}

TEST(Additive, MoreCodebooksAndBitsComeNearer) {
  const std::vector<float> values = Gaussian(64 * 128, 5);
  const auto error = [&](int books, int bits) { return MeanSquare(Decode(*Encode(SchemeOf(books, bits, 8), {64, 128}, values)), values); };
  EXPECT_LT(error(2, 6), 0.8 * error(1, 6));
  EXPECT_LT(error(3, 6), 0.8 * error(2, 6));
  EXPECT_LT(error(1, 8), 0.9 * error(1, 6));
}

// Shannon's bound for 6 / 8 of a bit a weight of a normal source is 2^-1.5 = 0.354.
TEST(Additive, KMeansComesNearTheBoundOfItsRate) {
  const std::vector<float> values = Gaussian(512 * 64, 6);
  const double error = MeanSquare(Decode(*Encode(SchemeOf(1, 6, 8), {512, 64}, values)), values);
  EXPECT_GT(error, 0.354);
  EXPECT_LT(error, 0.50);
}

TEST(Additive, GradientsAreThoseOfDecoding) {
  AdditiveTensor tensor = *ResidualKMeans(SchemeOf(2, 3, 4), 70, 18, Gaussian(70 * 18, 7), 10, 1, nullptr);
  const std::vector<float> gradient = Gaussian(70 * 18, 8);  // of the loss <gradient, decoded>
  std::vector<float> words, scales;
  ThreadPool pool(3);
  tensor.Gradients(gradient, &pool, &words, &scales);
  const auto loss = [&] {
    const std::vector<float> decoded = tensor.Decode();
    return std::inner_product(decoded.begin(), decoded.end(), gradient.begin(), 0.0);
  };
  const auto slope = [&](float& parameter) {
    const float at = parameter, step = 0.25f;
    parameter = at + step;
    const double up = loss();
    parameter = at - step;
    const double down = loss();
    parameter = at;
    return (up - down) / (2 * static_cast<double>(step));
  };
  for (size_t i = 0; i < words.size(); i += 7) EXPECT_NEAR(words[i], slope(tensor.words[i]), 1e-3 + 1e-3 * std::fabs(words[i])) << i;
  for (size_t i = 0; i < scales.size(); i += 5) EXPECT_NEAR(scales[i], slope(tensor.scales[i]), 1e-3) << i;
  std::vector<float> alone, alone_scales;
  tensor.Gradients(gradient, nullptr, &alone, &alone_scales);
  EXPECT_EQ(alone, words);
  EXPECT_EQ(alone_scales, scales);
}

TEST(NearestWords, IsTheLeastOfAll) {
  Rng rng(9);
  for (const int64_t words : {1, 3, 16, 17, 250}) {
    for (const int64_t dim : {1, 5, 8}) {
      const std::vector<float> book = Gaussian(words * dim, words + dim), x = Gaussian(7 * dim, 4);
      const WordTable table(book, dim);
      const std::vector<float> bias = table.BiasOf([&](int64_t w) { return static_cast<float>(w % 5) * 0.3f; });
      std::vector<float> factors(7), values(7), all(words);
      for (float& f : factors) f = static_cast<float>(rng.Below(3));
      std::vector<uint16_t> found(7);
      NearestWords(table, bias.data(), 7, factors.data(), x.data(), found.data(), values.data());
      for (int64_t i = 0; i < 7; ++i) {
        WordValues(table, bias.data(), factors[i], x.data() + i * dim, all.data());
        const int64_t best = std::min_element(all.begin(), all.end()) - all.begin();
        EXPECT_EQ(found[i], best);
        EXPECT_EQ(values[i], all[best]);
        double direct = static_cast<double>(factors[i]) * bias[best];
        for (int64_t j = 0; j < dim; ++j) direct -= static_cast<double>(x[i * dim + j]) * book[best * dim + j];
        EXPECT_NEAR(values[i], direct, 1e-5);
      }
    }
  }
}

TEST(KMeans, FindsClustersThatAreThere) {
  Rng rng(2);
  std::vector<float> vectors;
  for (int i = 0; i < 3000; ++i) {
    const int cluster = i % 10;
    vectors.push_back(static_cast<float>(cluster % 5) + 0.01f * rng.Normal());
    vectors.push_back(static_cast<float>(cluster / 5) + 0.01f * rng.Normal());
  }
  // Twice the variance of the noise is what is left with a word for each cluster.
  double least = 1;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const std::vector<float> words = KMeans(vectors, 2, {.words = 10, .seed = seed}, nullptr);
    const Assignment assignment = AssignNearest(vectors, 2, words, nullptr);
    least = std::min(least, std::accumulate(assignment.distances.begin(), assignment.distances.end(), 0.0) / 3000);
  }
  EXPECT_NEAR(least, 2e-4, 2e-5);
}

TEST(KMeans, SameForAnyThreadCountAndAnotherForAnotherSeed) {
  const std::vector<float> vectors = Gaussian(9000 * 4, 3);
  const KMeansOptions options = {.words = 32, .iterations = 8, .vectors_per_word = 200, .seed = 5};
  ThreadPool two(2), three(3);
  const std::vector<float> alone = KMeans(vectors, 4, options, nullptr);
  EXPECT_EQ(alone, KMeans(vectors, 4, options, &two));
  EXPECT_EQ(alone, KMeans(vectors, 4, options, &three));
  KMeansOptions other = options;
  other.seed = 6;
  EXPECT_NE(alone, KMeans(vectors, 4, other, nullptr));
}

TEST(AqlmScheme, WhatDoesNotApplyIsRefused) {
  const auto refused = [](QuantScheme scheme) { return std::string(ValidateScheme(scheme).message()); };
  EXPECT_EQ(refused(SchemeOf(2, 8, 8)), "");
  EXPECT_EQ(SchemeToString(SchemeOf(2, 8, 8)), "aqlm 2x8 bits per group of 8, fp16 scales per row");
  EXPECT_THAT(refused(SchemeOf(0, 8, 8)), ::testing::HasSubstr("codebooks: 0 must be 1 to 16"));
  EXPECT_THAT(refused(SchemeOf(1, 17, 8)), ::testing::HasSubstr("bits: 17 must be 1 to 16"));
  EXPECT_THAT(refused(SchemeOf(1, 8, 65)), ::testing::HasSubstr("in_group: 65 must be 1 to 64"));
  QuantScheme grouped = SchemeOf(2, 8, 8);
  grouped.set_per(QuantScheme::PER_GROUP);
  grouped.set_group_size(32);
  EXPECT_THAT(refused(grouped), ::testing::HasSubstr("PER_ROW"));
  EXPECT_THAT(std::string(Encode(SchemeOf(1, 4, 8), {1, 2}, {1e6f, 0}).status().message()), ::testing::HasSubstr("use BF16 or FP32 scales"));
}

// Any codes: products need no good ones.
EncodedTensor RandomTensor(const QuantScheme& scheme, int64_t rows, int64_t cols, Rng& rng) {
  AdditiveTensor tensor = EmptyOf(scheme, rows, cols);
  for (uint16_t& code : tensor.codes) code = static_cast<uint16_t>(rng.Below(tensor.words_per_codebook()));
  for (float& w : tensor.words) w = rng.Normal();
  for (float& s : tensor.scales) s = rng.Normal();
  return *Pack(scheme, {rows, cols}, tensor);
}

std::vector<float> Product(const kernels::Linear& linear, const kernels::KernelTable& table, const std::vector<float>& x, int64_t tokens, int threads) {
  ThreadPool pool(threads);
  std::vector<float> y(tokens * linear.rows());
  kernels::PreparedInput input;
  NIBBLE_CHECK_OK(input.Prepare(linear.input_form(), table, x.data(), tokens, pool));
  NIBBLE_CHECK_OK(linear.Multiply(input, y.data(), linear.rows(), pool));
  return y;
}

// Native products against decoded weights in double precision: odd shapes, padded
// groups, both ways to multiply few tokens, and panels.
TEST(AqlmLinear, EqualsDecodingThenMultiplying) {
  Rng rng(11);
  const kernels::KernelTable& table = *kernels::AvailableTables().back();
  const std::vector<QuantScheme> schemes = {SchemeOf(2, 8, 8), SchemeOf(2, 3, 8), SchemeOf(3, 4, 5), SchemeOf(1, 12, 16), SchemeOf(1, 16, 8), SchemeOf(4, 2, 1)};
  for (const QuantScheme& scheme : schemes) {
    const int64_t rows = 1 + static_cast<int64_t>(rng.Below(120)), cols = 1 + static_cast<int64_t>(rng.Below(150));
    const EncodedTensor weight = RandomTensor(scheme, rows, cols, rng);
    const std::vector<float> w = Decode(weight);
    for (const auto& activation : {std::optional<QuantScheme>(), std::optional<QuantScheme>(FloatScheme("fp32"))}) {
      ASSERT_OK_AND_ASSIGN(const auto linear, kernels::Linear::Create(weight, activation, table));
      EXPECT_EQ(linear->arithmetic(), kernels::Arithmetic::kNative);
      EXPECT_GT(linear->weight_bytes(), 0);
      for (int64_t tokens = 1; tokens <= 40; tokens += tokens < 6 ? 1 : 5) {
        SCOPED_TRACE(absl::StrCat(SchemeToString(scheme), ", ", rows, "x", cols, ", ", tokens, " tokens"));
        const std::vector<float> x = Gaussian(tokens * cols, tokens), y = Product(*linear, table, x, tokens, 2);
        for (int64_t i = 0; i < tokens * rows; ++i) {
          double expected = 0, magnitude = 1e-3;
          for (int64_t c = 0; c < cols; ++c) {
            const double product = static_cast<double>(w[i % rows * cols + c]) * x[i / rows * cols + c];
            expected += product;
            magnitude += std::fabs(product);
          }
          ASSERT_NEAR(y[i], expected, 2e-5 * magnitude) << i;
        }
        EXPECT_EQ(y, Product(*linear, table, x, tokens, 1));
      }
    }
  }
}

TEST(AqlmLinear, IntegerActivationsRunSimulated) {
  Rng rng(1);
  const kernels::KernelTable& table = *kernels::AvailableTables().back();
  QuantScheme tokens = IntegerScheme(8, 0, true);
  tokens.set_per(QuantScheme::PER_TOKEN);
  ASSERT_OK_AND_ASSIGN(const auto linear, kernels::Linear::Create(RandomTensor(SchemeOf(2, 4, 8), 20, 32, rng), tokens, table));
  EXPECT_EQ(linear->arithmetic(), kernels::Arithmetic::kSimulated);
}

}  // namespace
}  // namespace nibble::additive
