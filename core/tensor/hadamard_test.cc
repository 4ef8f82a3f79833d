#include "core/tensor/hadamard.h"

#include <cmath>

#include "core/base/rng.h"
#include "core/base/testing.h"

namespace nibble {
namespace {

// Row i of H: the transform of the unit vector i.
std::vector<double> Row(const Hadamard& hadamard, int64_t i) {
  std::vector<double> row(hadamard.size(), 0.0);
  row[i] = 1;
  hadamard.Apply(row.data());
  return row;
}

TEST(Hadamard, IsOrthonormalWithEqualEntries) {
  for (const int64_t size : {1, 2, 4, 8, 12, 20, 24, 28, 36, 40, 44, 60, 64, 72, 108, 140, 192, 576}) {
    ASSERT_OK_AND_ASSIGN(const Hadamard hadamard, Hadamard::Create(size));
    ASSERT_EQ(hadamard.size(), size);
    std::vector<std::vector<double>> rows;
    for (int64_t i = 0; i < size; ++i) rows.push_back(Row(hadamard, i));
    for (int64_t i = 0; i < size; ++i) {
      for (const double entry : rows[i]) ASSERT_NEAR(std::fabs(entry), 1 / std::sqrt(static_cast<double>(size)), 1e-12);
      for (int64_t j = 0; j < size; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < size; ++k) dot += rows[i][k] * rows[j][k];
        ASSERT_NEAR(dot, i == j ? 1 : 0, 1e-12) << "order " << size << ", rows " << i << " and " << j;
      }
    }
  }
}

TEST(Hadamard, SizesOfPublishedModels) {
  const std::vector<std::pair<int64_t, int64_t>> sizes = {{2048, 1},  {3072, 12},  {4096, 1},   {5120, 20},  {8192, 1},  {13824, 108},
                                                          {14336, 28}, {28672, 28}, {3584, 28}, {576, 36}, {1536, 12}, {192, 12}};
  for (const auto& [size, order] : sizes) {
    ASSERT_OK_AND_ASSIGN(const Hadamard hadamard, Hadamard::Create(size));
    EXPECT_EQ(hadamard.order(), order) << size;
  }
}

TEST(Hadamard, TransposeUndoesAndPowersOfTwoAreInvolutions) {
  Rng rng(4);
  for (const int64_t size : {16, 28, 1536}) {
    ASSERT_OK_AND_ASSIGN(const Hadamard hadamard, Hadamard::Create(size));
    std::vector<float> x(size);
    for (float& v : x) v = static_cast<float>(rng.Normal());
    std::vector<float> y = x;
    hadamard.Apply(y.data());
    hadamard.ApplyTransposed(y.data());
    for (int64_t i = 0; i < size; ++i) EXPECT_NEAR(y[i], x[i], 1e-5);
  }
  ASSERT_OK_AND_ASSIGN(const Hadamard hadamard, Hadamard::Create(8));
  std::vector<double> x = {1, 0, 0, 0, 0, 0, 0, 0};
  hadamard.Apply(x.data());
  for (const double v : x) EXPECT_NEAR(v, 1 / std::sqrt(8.0), 1e-12);
  hadamard.Apply(x.data());
  EXPECT_NEAR(x[0], 1, 1e-12);
  EXPECT_NEAR(x[5], 0, 1e-12);
}

TEST(Hadamard, UnknownOrdersNameTheLargestBlock) {
  EXPECT_THAT(std::string(Hadamard::Create(172).status().message()), ::testing::HasSubstr("largest block that divides it is 4"));
  EXPECT_THAT(std::string(Hadamard::Create(11008).status().message()), ::testing::HasSubstr("256"));
  EXPECT_FALSE(Hadamard::Create(0).ok());
  EXPECT_FALSE(Hadamard::Create(7).ok());
  EXPECT_EQ(Hadamard::LargestBlock(7), 1);
}

}  // namespace
}  // namespace nibble
