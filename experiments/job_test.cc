#include "experiments/job.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/testing.h"
#include "eval/raw_records.h"
#include "experiments/gather.h"
#include "experiments/input_hashes.h"
#include "experiments/model.h"
#include "experiments/model_store.h"
#include "experiments/run_plan.h"
#include "methods/testing.h"

namespace nibble {
namespace {

const char kModel[] = "configs/models/novelist";
const char kCalibrated[] = "step { [nibble.gptq] { bits: 3 samples: 2 layers: \"*.0.*\" data { text: \"text.txt\" window: 32 } } } ";
const char kA8[] = "step { [nibble.activations] {} }", kA4[] = "step { [nibble.activations] { bits: 4 } }";

class JobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 200; ++i) absl::StrAppend(&text, "The old house stood at the end of lane ", i, ". ");
    ASSERT_OK(WriteFile(dir_ + "/text.txt", text));
  }

  Job NewJob(const std::string& store) const {
    Job job;
    job.set_model(kModel);
    job.set_model_hash("a model");
    job.set_directory(dir_);
    job.set_threads(1);
    job.set_store(dir_ + "/" + store);
    return job;
  }

  // Steps are called by their text.
  Job BuildJob(const std::string& store, const std::string& steps) const {
    Job job = NewJob(store);
    *job.mutable_build()->mutable_pipeline() = ParsePipeline(steps);
    std::string made;
    for (const Step& step : job.build().pipeline().step()) job.mutable_build()->add_key(made = Sha256(made + ProtoToLine(step)));
    return job;
  }

  // A report as text, without the time that it took.
  static std::string Untimed(BuildReport report) {
    EXPECT_GT(report.seconds(), 0);
    report.clear_seconds();
    return ProtoToText(report);
  }

  // A build of a model of two blocks with random weights.
  Job TinyBuild(const std::string& store, const std::string& steps) const {
    Job job = BuildJob(store, steps);
    job.set_model("synthetic:tiny");
    return job;
  }

  // The errors of weights, none where the report says that they do not compare.
  static std::map<std::string, std::optional<double>> ErrorsOf(const BuildReport& report) {
    EXPECT_EQ(report.error(), "");
    std::map<std::string, std::optional<double>> errors;
    for (const WeightError& weight : report.weight()) {
      errors[weight.linear()] = weight.has_error() ? std::optional<double>(weight.error()) : std::nullopt;
    }
    return errors;
  }

  static std::string WeightsOf(const Job& job) {
    const auto bytes = ReadFile(absl::StrCat(ModelStore(job.store()).PathOf(*job.build().key().rbegin()), "/model.safetensors"));
    EXPECT_OK(bytes);
    return *bytes;
  }

  const std::string dir_ = TestTempDir();
};

TEST_F(JobTest, ABuildGoesOnFromAKeptBeginning) {
  Job first = BuildJob("shared", std::string(kCalibrated) + kA8), second = BuildJob("shared", std::string(kCalibrated) + kA4);
  first.mutable_build()->add_keep(first.build().key(0));
  const BuildReport a = DoBuild(first);
  ASSERT_EQ(a.error(), "");
  const Job alone = BuildJob("alone", std::string(kCalibrated) + kA4);
  const BuildReport expected = DoBuild(alone);
  // What is taken up needs the text no more.
  std::filesystem::remove(dir_ + "/text.txt");
  const BuildReport b = DoBuild(second);
  ASSERT_EQ(b.error(), "");
  EXPECT_EQ(WeightsOf(second), WeightsOf(alone));
  EXPECT_EQ(Untimed(b), Untimed(expected));
  EXPECT_GT(b.layer_size(), 0);
  // A model that is there is not made again.
  EXPECT_EQ(Untimed(DoBuild(first)), Untimed(a));
  EXPECT_NE(DoBuild(BuildJob("other", kCalibrated)).error(), "");
}

const char kUp[] = "model.layers.1.mlp.up_proj", kDown[] = "model.layers.1.mlp.down_proj", kOut[] = "model.layers.1.self_attn.o_proj";
const char kRtn4[] = "step { [nibble.rtn] { bits: 4 } }";

// |W_q - W| / |W| of rows rounded to codes of at most 7 under a scale of absmax / 7.
double RoundingErrorByHand(const std::string& linear) {
  const auto model = OpenModel("synthetic:tiny");
  EXPECT_OK(model);
  const ir::Parameter& weight = model->graph.parameter(*model->graph.FindOp(linear)->weight);
  const std::vector<float> values = weight.LoadFloats().value();
  const size_t cols = weight.shape().back();
  double change = 0, size = 0;
  for (size_t begin = 0; begin < values.size(); begin += cols) {
    float largest = 0;
    for (size_t i = begin; i < begin + cols; ++i) largest = std::max(largest, std::abs(values[i]));
    for (size_t i = begin; i < begin + cols; ++i) {
      const double scale = largest / 7, rounded = std::nearbyint(values[i] / scale) * scale;
      change += (rounded - values[i]) * (rounded - values[i]);
      size += values[i] * values[i];
    }
  }
  return std::sqrt(change / size);
}

TEST_F(JobTest, BuildsReportHowFarTheyMovedWeights) {
  const auto errors = ErrorsOf(DoBuild(TinyBuild("store", kRtn4)));
  ASSERT_EQ(errors.size(), 14u);  // seven linears of two blocks; the head is not quantized
  for (const char* linear : {kUp, kDown, kOut}) EXPECT_NEAR(errors.at(linear).value(), RoundingErrorByHand(linear), 1e-5) << linear;
  Job threaded = TinyBuild("threaded", kRtn4);
  threaded.set_threads(2);
  EXPECT_EQ(ErrorsOf(DoBuild(threaded)), errors);
  EXPECT_TRUE(ErrorsOf(DoBuild(TinyBuild("store", "step { [nibble.baseline] {} }"))).empty());
  EXPECT_TRUE(ErrorsOf(DoBuild(TinyBuild("store", kA8))).empty());
}

TEST_F(JobTest, WeightsThatWereRewrittenDoNotCompare) {
  const auto plain = ErrorsOf(DoBuild(TinyBuild("store", kRtn4)));
  // R1 and R2 touch every linear.
  const auto rotated = ErrorsOf(DoBuild(TinyBuild("store", absl::StrCat("step { [nibble.spinquant] {} } ", kRtn4))));
  ASSERT_EQ(rotated.size(), plain.size());
  for (const auto& [linear, error] : rotated) EXPECT_FALSE(error.has_value()) << linear;
  // Scales from norms into what reads them; what follows attention and the product stays as it was.
  const auto scaled = ErrorsOf(DoBuild(TinyBuild("store", absl::StrCat("step { [nibble.outlier_stress] { channels: 3 } } ", kRtn4))));
  EXPECT_FALSE(scaled.at(kUp).has_value());
  EXPECT_EQ(scaled.at(kDown), plain.at(kDown));
  EXPECT_EQ(scaled.at(kOut), plain.at(kOut));
}

TEST_F(JobTest, ABuildThatGoesOnKnowsWhatWasRewritten) {
  const std::string stress = "step { [nibble.outlier_stress] { channels: 3 } } ";
  Job first = TinyBuild("store", stress + kA8);
  first.mutable_build()->add_keep(first.build().key(0));
  EXPECT_TRUE(ErrorsOf(DoBuild(first)).empty());
  const BuildReport on = DoBuild(TinyBuild("store", stress + kRtn4));
  EXPECT_EQ(Untimed(on), Untimed(DoBuild(TinyBuild("alone", stress + kRtn4))));
  EXPECT_FALSE(ErrorsOf(on).at(kUp).has_value());
  // A beginning that is a variant by itself has its own.
  Job kept = TinyBuild("kept", absl::StrCat(kRtn4, " ", kA8));
  kept.mutable_build()->add_keep(kept.build().key(0));
  const auto errors = ErrorsOf(DoBuild(kept));
  EXPECT_EQ(errors.size(), 14u);
  EXPECT_EQ(ErrorsOf(DoBuild(TinyBuild("kept", kRtn4))), errors);
}

TEST_F(JobTest, TheStoreKeepsWhatIsWanted) {
  const Job job = BuildJob("store", kA8);
  ASSERT_EQ(DoBuild(job).error(), "");
  ModelStore store(job.store());
  ASSERT_OK(MakeDirectories(job.store() + "/left.123"));
  EXPECT_TRUE(store.Has(job.build().key(0)));
  EXPECT_GT(store.BytesOf(job.build().key(0)), 1 << 20);
  ASSERT_OK(store.KeepOnly({job.build().key(0)}));
  EXPECT_TRUE(store.Has(job.build().key(0)));
  EXPECT_FALSE(IsDirectory(job.store() + "/left.123"));
  ASSERT_OK(store.KeepOnly({}));
  EXPECT_FALSE(store.Has(job.build().key(0)));
}

TEST_F(JobTest, MeasurementsReportMetricsOrWhyNot) {
  const Job build = BuildJob("store", kA8);
  ASSERT_EQ(DoBuild(build).error(), "");
  Job job = NewJob("store");
  job.mutable_measurement()->set_model_key(build.build().key(0));
  job.mutable_measurement()->mutable_metric()->mutable_size();
  ASSERT_OK(WriteFile(dir_ + "/size.textproto", ProtoToText(job)));
  ASSERT_OK(DoJob(dir_ + "/size.textproto"));
  MeasurementReport report;
  ASSERT_OK_AND_ASSIGN(const std::string json, ReadFile(dir_ + "/size.json"));
  ASSERT_OK(JsonToProto(json, &report));
  EXPECT_EQ(report.metric(0).name(), "size_mib");
  EXPECT_FALSE(report.has_records());
  job.mutable_measurement()->clear_metric();
  job.mutable_measurement()->mutable_metric()->mutable_perplexity()->set_text("text.txt");
  job.mutable_measurement()->mutable_metric()->mutable_perplexity()->set_window(32);
  job.mutable_measurement()->mutable_metric()->mutable_perplexity()->set_limit(2);
  const MeasurementReport perplexity = DoMeasurement(job);
  ASSERT_EQ(perplexity.error(), "");
  ASSERT_OK(WriteFile(dir_ + "/r.safetensors", perplexity.records()));
  ASSERT_OK_AND_ASSIGN(const eval::RawRecords records, eval::ReadRawRecords(dir_ + "/r.safetensors"));
  ASSERT_OK_AND_ASSIGN(const std::vector<Metric> metrics, eval::MetricsOf(records));
  EXPECT_EQ(ProtoToText(metrics[0]), ProtoToText(perplexity.metric(0)));
  job.mutable_measurement()->set_model_key("gone");
  EXPECT_THAT(DoMeasurement(job).error(), ::testing::HasSubstr("store/gone"));
}

// Wherever the job ran, its peaks stand with its timings.
TEST_F(JobTest, TimingsReportTheMachinesPeaks) {
  const Job build = BuildJob("store", kA8);
  ASSERT_EQ(DoBuild(build).error(), "");
  Job job = NewJob("store");
  job.mutable_measurement()->set_model_key(build.build().key(0));
  Latency& latency = *job.mutable_measurement()->mutable_metric()->mutable_latency();
  latency.set_prefill(4);
  latency.set_decode(2);
  latency.set_rounds(2);
  latency.set_threads(2);
  const MeasurementReport timed = DoMeasurement(job);
  ASSERT_EQ(timed.error(), "");
  EXPECT_EQ(timed.machine().threads(), 1);
  EXPECT_EQ(timed.machine().peak_threads(), 2);
  EXPECT_GT(timed.machine().read_bandwidth_gb_s(), 0);
  EXPECT_GT(timed.machine().fma_peak_gflop_s(), 0);
  EXPECT_GT(timed.machine().int8_peak_gop_s(), 0);
  BuildReport built;
  built.add_weight()->set_linear("lm_head");
  JobResult result;
  Complete(built, nullptr, timed, &result);
  EXPECT_EQ(result.weight_size(), 1);
  EXPECT_EQ(ProtoToText(result.machine()), ProtoToText(timed.machine()));
  job.mutable_measurement()->mutable_metric()->mutable_size();
  const MeasurementReport size = DoMeasurement(job);
  ASSERT_EQ(size.error(), "");
  EXPECT_FALSE(size.machine().has_read_bandwidth_gb_s());
  EXPECT_FALSE(size.machine().has_peak_threads());
}

TEST_F(JobTest, FilesThatAreNoJobAreErrors) {
  const auto message = [&](const std::string& text) {
    EXPECT_OK(WriteFile(dir_ + "/job.textproto", text));
    return std::string(DoJob(dir_ + "/job.textproto").message());
  };
  EXPECT_THAT(message("model: 5"), ::testing::HasSubstr("job.textproto:1:"));
  EXPECT_THAT(message("model: \"m\""), ::testing::HasSubstr("needs a build or a measurement"));
  EXPECT_THAT(message("build { pipeline { step {} } }"), ::testing::HasSubstr("0 keys for 1 steps"));
  EXPECT_FALSE(DoJob(dir_ + "/none.textproto").ok());
}

TEST_F(JobTest, NamesInAPlanThatLeaveItsFolderAreErrors) {
  const auto message = [&](const std::string& row) {
    EXPECT_OK(WriteFile(dir_ + "/plan.json", absl::StrCat("{\"row\": [{", row, "}]}")));
    return std::string(GatherReports(dir_, dir_ + "/run").message());
  };
  EXPECT_THAT(message(R"("build": "../b", "measurement": "m", "result": {"key": "k"})"), ::testing::HasSubstr("plan.json: '../b' is no name of a job's file"));
  EXPECT_THAT(message(R"("build": "b", "measurement": "m", "result": {"key": "../k"})"), ::testing::HasSubstr("plan.json: '../k' is no name"));
  EXPECT_THAT(message(R"("build": "b", "result": {"key": "k"})"), ::testing::HasSubstr("'' is no name"));
  EXPECT_THAT(message(R"("build": "b.c-d=1_2", "measurement": "m", "result": {"key": "k"})"), ::testing::HasSubstr("b.c-d=1_2.json"));
}

TEST_F(JobTest, HashesFollowTheFilesThatStepsRead) {
  const Step step = ParsePipeline(kCalibrated).step(0);
  const auto hash = [&](const Step& of) { return InputHashes(dir_).OfOptions(of).value(); };
  const std::string before = hash(step);
  EXPECT_NE(before, "");
  EXPECT_EQ(hash(step), before);
  EXPECT_EQ(hash(ParsePipeline(kA8).step(0)), "");
  ASSERT_OK(WriteFile(dir_ + "/text.txt", "another text"));
  EXPECT_NE(hash(step), before);
  // A file that a method marks as one.
  const Step rotated = ParsePipeline("step { [nibble.spinquant] { rotations: \"r.safetensors\" } }").step(0);
  ASSERT_OK(WriteFile(dir_ + "/r.safetensors", "one"));
  const std::string one = hash(rotated);
  ASSERT_OK(WriteFile(dir_ + "/r.safetensors", "two"));
  EXPECT_NE(hash(rotated), one);
  std::filesystem::remove(dir_ + "/text.txt");
  EXPECT_THAT(std::string(InputHashes(dir_).OfOptions(step).status().message()), ::testing::HasSubstr("text.txt"));
}

TEST_F(JobTest, TextThatIsMeasuredIsNotCalibratedOn) {
  const Step step = ParsePipeline(kCalibrated).step(0);
  std::vector<MetricRequest> metrics(2);
  metrics[0].mutable_size();
  metrics[1].mutable_perplexity()->set_text("copy.txt");
  ASSERT_OK(WriteFile(dir_ + "/copy.txt", "another text"));
  EXPECT_OK(InputHashes(dir_).CheckHeldOut(step, metrics));
  std::filesystem::copy_file(dir_ + "/text.txt", dir_ + "/copy.txt", std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(std::string(InputHashes(dir_).CheckHeldOut(step, metrics).message()), ::testing::HasSubstr("allow_test_data"));
}

}  // namespace
}  // namespace nibble
