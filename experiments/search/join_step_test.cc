#include "experiments/search/join_step.h"

#include "core/base/proto.h"
#include "core/base/testing.h"
#include "experiments/text_config.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

Step Parse(const std::string& text) {
  Step step;
  EXPECT_OK(ParseText(text, "step", &step));
  return step;
}

TEST(JoinStep, SchemesOfOnePass) {
  Step step = Parse("[nibble.gptq] { bits: 2 group_size: 32 layers: \"a\" samples: 8 }");
  EXPECT_TRUE(JoinStep(Parse("[nibble.gptq] { asymmetric: true range { absmax {} } layers: \"b\" layers: \"c\" samples: 8 }"), &step));
  EXPECT_TRUE(JoinStep(Parse("[nibble.gptq] { bits: 8 layers: \"d\" samples: 8 }"), &step));
  EXPECT_EQ(ProtoToLine(step), ProtoToLine(Parse("[nibble.gptq] { bits: 2 group_size: 32 layers: \"a\" samples: 8 "
                                                 "other { layers: \"b\" layers: \"c\" asymmetric: true range { absmax {} } } "
                                                 "other { layers: \"d\" bits: 8 } }")));
}

TEST(JoinStep, NothingElseMayDiffer) {
  const Step step = Parse("[nibble.gptq] { bits: 2 layers: \"a\" samples: 8 }");
  for (const char* next : {"[nibble.gptq] { bits: 3 layers: \"b\" samples: 9 }", "[nibble.gptq] { bits: 3 layers: \"b\" }",
                           "[nibble.rtn] { bits: 3 layers: \"b\" }", "[nibble.gptq] { layers: \"b\" samples: 8 other { layers: \"c\" } }"}) {
    Step same = step;
    EXPECT_FALSE(JoinStep(Parse(next), &same)) << next;
    EXPECT_EQ(same.SerializeAsString(), step.SerializeAsString()) << next;
  }
}

// rtn takes one scheme.
TEST(JoinStep, MethodsWithoutAListKeepTheirSteps) {
  Step step = Parse("[nibble.rtn] { bits: 2 layers: \"a\" }");
  EXPECT_FALSE(JoinStep(Parse("[nibble.rtn] { bits: 3 layers: \"b\" }"), &step));
  EXPECT_THAT(ProtoToLine(step), HasSubstr("bits: 2"));
}

}  // namespace
}  // namespace nibble
