#include "methods/autoquant/candidates.h"

#include <map>
#include <set>
#include <string>

#include "core/base/testing.h"
#include "core/quant/encoded.h"

namespace nibble {
namespace {

using ::testing::IsSupersetOf;
using Candidate = AutoquantOptions::Candidate;

std::vector<Candidate> CandidatesOf(const kernels::KernelTable& table) {
  auto candidates = NativeCandidates(table);
  EXPECT_OK(candidates);
  return *std::move(candidates);
}

QuantScheme InGroups(const std::string& format, int size) {
  QuantScheme scheme = FloatScheme(format);
  scheme.set_per(QuantScheme::PER_GROUP);
  scheme.set_group_size(size);
  return scheme;
}

TEST(NativeCandidates, AreOfEveryKindOfProduct) {
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    std::set<std::string> names;
    for (const Candidate& candidate : CandidatesOf(*table)) {
      EXPECT_OK(ValidateScheme(candidate.weight()));
      EXPECT_TRUE(names.insert(candidate.name()).second) << candidate.name();
    }
    std::vector<std::string> expected = {"bf16"};
    for (const QuantScheme& scheme : {IntegerScheme(8, 0, false), IntegerScheme(4, 32, false), IntegerScheme(4, 128, true),
                                      IntegerScheme(2, 32, false), InGroups("affine4", 128), FloatScheme("q4_k"), FloatScheme("q8_0")}) {
      expected.push_back(SchemeToString(scheme));
      expected.push_back(SchemeToString(scheme) + "; int8 activations");
    }
    for (const char* format : {"nf4", "fp4", "fp8_e4m3"}) expected.push_back(SchemeToString(InGroups(format, 128)));
    EXPECT_THAT(names, IsSupersetOf(expected)) << table->name;
    // A table's values have no product with integers.
    EXPECT_EQ(names.count(SchemeToString(InGroups("nf4", 32)) + "; int8 activations"), 0u);
  }
}

TEST(NativeCandidates, HoldNoProductTwice) {
  const std::vector<Candidate> candidates = CandidatesOf(**kernels::ChooseTable());
  std::map<std::string, int> formats;
  for (const Candidate& candidate : candidates) {
    const QuantScheme& scheme = candidate.weight();
    ++formats[scheme.format()];
    EXPECT_FALSE(scheme.has_range());
    EXPECT_NE(scheme.per(), QuantScheme::PER_TENSOR);
    const bool in_groups = scheme.per() == QuantScheme::PER_GROUP;
    EXPECT_TRUE(!in_groups || scheme.group_size() == 32 || scheme.group_size() == 128) << candidate.name();
  }
  for (const char* format : {"int3", "int5", "affine7", "q6_k", "aqlm", "fp16", "fp32"}) EXPECT_EQ(formats.count(format), 0u) << format;
  EXPECT_EQ(formats["bf16"], 1);
  EXPECT_LT(candidates.size(), 150u);
}

TEST(SuitsRows, BlocksAndGroupsDivideARow) {
  const QuantScheme bf16 = FloatScheme("bf16");
  EXPECT_TRUE(SuitsRows(IntegerScheme(4, 0, false), 100, bf16));
  EXPECT_TRUE(SuitsRows(IntegerScheme(4, 32, false), 96, bf16));
  EXPECT_FALSE(SuitsRows(IntegerScheme(4, 32, false), 100, bf16));
  EXPECT_FALSE(SuitsRows(IntegerScheme(4, 128, false), 128, bf16));
  EXPECT_TRUE(SuitsRows(FloatScheme("q4_0"), 96, bf16));
  EXPECT_FALSE(SuitsRows(FloatScheme("q4_k"), 96, bf16));
}

TEST(SuitsRows, Bf16IsOfUseToFp32) {
  EXPECT_TRUE(SuitsRows(FloatScheme("bf16"), 100, FloatScheme("fp32")));
  EXPECT_FALSE(SuitsRows(FloatScheme("bf16"), 100, FloatScheme("bf16")));
  EXPECT_FALSE(SuitsRows(FloatScheme("bf16"), 100, FloatScheme("fp16")));
}

}  // namespace
}  // namespace nibble
