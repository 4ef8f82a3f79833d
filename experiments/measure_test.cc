#include "experiments/measure.h"

#include <optional>

#include "core/base/file.h"
#include "core/base/testing.h"
#include "google/protobuf/text_format.h"
#include "methods/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

constexpr char kDocuments[] = R"(name: "documents"
version: "1"
kind: ROLLING
part { file: "documents.jsonl" }
text: "{text}"
)";

// What a model has learned bounds what tasks let it see. The reference checkpoint's weights stand
// for models of any number of positions.
class MeasurerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SetProgressEnabled(false);
    auto model = OpenModel("configs/models/novelist");
    ASSERT_OK(model);
    model_.emplace(*std::move(model));
    ASSERT_OK_AND_ASSIGN(built_.plan, PlanOf(*model_));
    std::string text;
    for (int i = 0; i < 40; ++i) absl::StrAppend(&text, "The old house stood at the end of lane ", i, ". ");
    ASSERT_OK(WriteFile(dir_ + "/documents.textproto", kDocuments));
    ASSERT_OK(WriteFile(dir_ + "/documents.jsonl", absl::StrCat("{\"text\": \"", text, "\"}\n")));
    ASSERT_OK(WriteFile(dir_ + "/questions.jsonl",
                        absl::StrCat("{\"query\": \"", text, "It was\", \"choices\": [\"old\", \"new\"], \"gold\": 0}\n")));
  }

  // The convention of the request's first metric on a model of so many positions, or the error.
  std::string ConventionOf(const std::string& request, int64_t positions) {
    MetricRequest parsed;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(request, &parsed)) << request;
    model_->source.config.max_position_embeddings = positions;
    const auto metrics = Measurer(model_->source, dir_, 2).Measure(parsed, built_, nullptr);
    return metrics.ok() ? metrics->front().convention() : std::string(metrics.status().message());
  }

  const std::string dir_ = TestTempDir();
  std::optional<OpenedModel> model_;
  BuiltModel built_;
};

TEST_F(MeasurerTest, ContextsKeepWithinTheModelsPositions) {
  const std::string questions = "multiple_choice { set: 'questions.jsonl' }";
  EXPECT_THAT(ConventionOf(questions, 64), HasSubstr(" truncated=1 positions=64"));
  EXPECT_THAT(ConventionOf(questions, 4096), ::testing::Not(HasSubstr("truncated")));
  EXPECT_THAT(ConventionOf(questions, 0), ::testing::Not(HasSubstr("truncated")));
}

TEST_F(MeasurerTest, RollingWindowsKeepWithinTheModelsPositions) {
  const std::string rolling = "task { task: 'documents.textproto' }";
  EXPECT_THAT(ConventionOf(rolling, 64), HasSubstr("rolling window=64 "));
  EXPECT_THAT(ConventionOf(rolling, 4096), HasSubstr("rolling window=2048 "));
  EXPECT_THAT(ConventionOf(rolling, 0), HasSubstr("rolling window=2048 "));
  EXPECT_THAT(ConventionOf("task { task: 'documents.textproto' window: 4096 }", 8192), HasSubstr("rolling window=4096 "));
  EXPECT_THAT(ConventionOf("task { task: 'documents.textproto' window: 65 }", 64),
              HasSubstr("a window of 65 tokens, and the model has learned 64 positions; set window to that or less"));
}

}  // namespace
}  // namespace nibble
