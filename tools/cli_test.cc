// The program end to end, as a user runs it: exit codes, messages, files.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/testing.h"

// Where a test limits the address space, or maps more than there is.
#ifdef __SANITIZE_THREAD__
#define SKIP_WITHOUT_ADDRESS_SPACE() GTEST_SKIP() << "ThreadSanitizer's shadow takes the address space"
#else
#define SKIP_WITHOUT_ADDRESS_SPACE() static_cast<void>(0)
#endif

namespace nibble {
namespace {

struct Outcome {
  int status = -1;
  std::string text;  // standard output and error
};

Outcome Nibble(const std::string& arguments) {
  Outcome outcome;
  std::FILE* pipe = ::popen(absl::StrCat("tools/nibble ", arguments, " 2>&1").c_str(), "r");
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof(buffer), pipe)) outcome.text.append(buffer, n);
  const int status = ::pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

void ExpectOutcome(const std::string& arguments, int status, const std::vector<std::string>& words) {
  const Outcome outcome = Nibble(arguments);
  EXPECT_EQ(outcome.status, status) << arguments << "\n" << outcome.text;
  for (const std::string& word : words) EXPECT_THAT(outcome.text, ::testing::HasSubstr(word)) << arguments;
}

std::string WriteConfig(const std::string& dir, const std::string& more) {
  const std::string path = dir + "/c.textproto";
  EXPECT_OK(WriteFile(path, absl::StrCat(R"(name: "t"
model { source: "synthetic:tiny" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "w4" step { [nibble.rtn] { group_size: 32 } } }
variant { name: "llama32" step { [nibble.llama32_ptq] {} } }
variant { name: "grouped" step { [nibble.rtn] {} } step { [nibble.activations] { group_size: 16 } } }
metric { size {} }
metric { memory { prefill: 16 } }
metric { latency { prefill: 16 decode: 4 rounds: 3 threads: 2 } }
)", more)));
  return path;
}

TEST(Cli, EveryCommandHasHelpWithExamples) {
  for (const char* command : {"run", "report", "gate", "quantize", "eval", "bench", "generate", "inspect", "methods", "train", "datasets"}) {
    ExpectOutcome(absl::StrCat(command, " --help"), 0, {"usage: nibble", "examples:"});
  }
  ExpectOutcome("help", 0, {"quantize", "Exit status"});
}

TEST(Cli, WrongInputIsOneMessageAndStatus2) {
  const std::string dir = TestTempDir();
  ExpectOutcome("", 2, {"usage"});
  ExpectOutcome("evla", 2, {"unknown command 'evla'; did you mean 'eval'"});
  ExpectOutcome("run", 2, {"needs config"});
  ExpectOutcome("run /no/such.textproto", 2, {"/no/such.textproto"});
  ExpectOutcome("run x --otu y", 2, {"did you mean '--out'"});
  ExpectOutcome("inspect synthetic:llama-3.2-1x", 2, {"llama-3.2-1b"});
  ExpectOutcome("inspect /no/such.gguf", 2, {"/no/such.gguf"});
  ExpectOutcome("methods rtm", 2, {"did you mean 'rtn'"});
  ExpectOutcome("eval --model synthetic:tiny --task perplexty:x", 2, {"did you mean 'perplexity'"});
  ExpectOutcome("eval --model synthetic:tiny --task perplexity:/no/such.txt", 2, {"/no/such.txt"});
  ExpectOutcome("eval --model synthetic:tiny --task perplexity:x --set windo=3", 2, {"did you mean 'window'"});
  ExpectOutcome("eval --model synthetic:tiny --task perplexity:x --threads 0", 2, {"--threads: got 0, expected 1 or more"});
  ExpectOutcome("generate --model synthetic:tiny --prompt x", 2, {"no tokenizer"});
  ExpectOutcome("inspect synthetic:tiny --tokens 0", 2, {"--tokens 0"});
  ExpectOutcome("inspect synthetic:tiny --pipeline p.textproto", 2, {"give --activations"});
  ExpectOutcome("bench --model synthetic:tiny --rounds 0", 2, {"--rounds"});
  ExpectOutcome("bench --model synthetic:tiny --prefill 8,x", 2, {"--prefill: 'x'"});
  ASSERT_OK(WriteFile(dir + "/junk.gguf", "GGUF\x03 not really"));
  ExpectOutcome(absl::StrCat("inspect ", dir, "/junk.gguf"), 2, {"junk.gguf"});
  ASSERT_OK(WriteFile(dir + "/p.textproto", "step { [nibble.rtn] { bits: 17 } }"));
  ExpectOutcome(absl::StrCat("quantize --model synthetic:tiny --pipeline ", dir, "/p.textproto --out ", dir, "/o"), 2,
                {"p.textproto:1:", "bits: 17"});
}

// One line that starts with the program's name, and status 2.
void ExpectOneMessage(const std::string& arguments, const std::vector<std::string>& words) {
  const Outcome outcome = Nibble(arguments);
  EXPECT_EQ(outcome.status, 2) << arguments << "\n" << outcome.text;
  const size_t begin = outcome.text.rfind("nibble: ");
  ASSERT_NE(begin, std::string::npos) << arguments << "\n" << outcome.text;
  const std::string message = outcome.text.substr(begin);
  EXPECT_EQ(message.find('\n'), message.size() - 1) << message;
  for (const std::string& word : words) EXPECT_THAT(message, ::testing::HasSubstr(word)) << arguments;
}

// A copy of the reference checkpoint whose file `name` is `contents`, or not there.
std::string NovelistWith(const std::string& name, const std::optional<std::string>& contents) {
  const std::string folder = TestTempDir() + "/model";
  EXPECT_OK(MakeDirectories(folder));
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_OK(WriteFile(absl::StrCat(folder, "/", file), ReadFile(absl::StrCat("configs/models/novelist/", file)).value()));
  }
  if (contents.has_value()) EXPECT_OK(WriteFile(absl::StrCat(folder, "/", name), *contents));
  else std::filesystem::remove(absl::StrCat(folder, "/", name));
  return folder;
}

std::string Novelist(const char* file) { return ReadFile(absl::StrCat("configs/models/novelist/", file)).value(); }

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
  return text;
}

constexpr char kPassages[] = " --task perplexity:quickstart/passages --set window=64 --limit 1";

TEST(Cli, DamagedModelsAreOneMessage) {
  const auto expect = [](const char* file, const std::optional<std::string>& contents, const std::vector<std::string>& words) {
    ExpectOneMessage(absl::StrCat("eval --model ", NovelistWith(file, contents), kPassages), words);
  };
  const std::string weights = Novelist("model.safetensors"), config = Novelist("config.json");
  expect("model.safetensors", std::string("\0\0\0\0\0\0\0\x80", 8) + weights.substr(8), {"model.safetensors: claims a header of 9223372036854775808 bytes"});
  expect("model.safetensors", weights.substr(0, weights.size() - 1000), {"model.safetensors: tensor '", "bytes of data"});
  expect("model.safetensors", Replaced(weights, "\"BF16\"", "\"I16\" "), {"model.safetensors: tensor 'model.", "floating-point tensor, got I16"});
  expect("model.safetensors", std::nullopt, {"model: neither model.safetensors nor"});
  expect("config.json", config.substr(0, config.size() / 2), {"config.json: not valid JSON"});
  expect("config.json", Replaced(config, "\"num_hidden_layers\": ", "\"num_hidden_layers\": 1000"), {"num_hidden_layers is 1000"});
  expect("config.json", Replaced(config, "\"vocab_size\": ", "\"vocab_size\": 1"), {"model.embed_tokens.weight: has shape [", "the configuration needs [1"});
  expect("config.json", "\xFF", {"config.json: not valid JSON"});
  expect("tokenizer.json", Replaced(Novelist("tokenizer.json"), "\"model\"", "\"mod\xFF\""), {"tokenizer.json: not valid JSON"});
  expect("tokenizer.json", Replaced(Novelist("tokenizer.json"), "\"BPE\"", "\"WordPiece\""), {"tokenizer.json: the model type 'WordPiece'"});
}

TEST(Cli, AMissingShardIsNamed) {
  const std::string folder = NovelistWith("model.safetensors", std::nullopt);
  ASSERT_OK(WriteFile(folder + "/model.safetensors.index.json", R"({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}})"));
  ExpectOneMessage(absl::StrCat("inspect ", folder), {"cannot open", "model-00002-of-00002.safetensors"});
}

TEST(Cli, WeightsThatAreNoNumbersAreNamed) {
  std::string weights = Novelist("model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, weights.data(), sizeof(header));
  std::fill(weights.begin() + 8 + header, weights.end(), '\xFF');  // NaN in any float type
  const std::string folder = NovelistWith("model.safetensors", weights);
  ExpectOneMessage(absl::StrCat("eval --model ", folder, kPassages), {folder, "are not finite: a weight is NaN or infinite", "nibble inspect"});
  ExpectOutcome(absl::StrCat("inspect ", folder), 0, {"weights are NaN or infinite"});
  ASSERT_OK(WriteFile(folder + "/p.textproto", "step { [nibble.rtn] {} }"));
  ExpectOneMessage(absl::StrCat("quantize --model ", folder, " --pipeline ", folder, "/p.textproto --out ", folder, "/q"),
                   {"model.layers.0.", "is nan: only finite values can be encoded"});
}

TEST(Cli, TokensOfAnotherModelsTokenizerAreErrors) {
  const std::string dir = TestTempDir(), folder = dir + "/tiny";
  ASSERT_OK(WriteFile(dir + "/p.textproto", "step { [nibble.baseline] {} }"));
  ExpectOutcome(absl::StrCat("quantize --model synthetic:tiny --pipeline ", dir, "/p.textproto --out ", folder), 0, {});
  ASSERT_OK(WriteFile(folder + "/tokenizer.json", Novelist("tokenizer.json")));
  const std::vector<std::string> words = {folder, "is outside the vocabulary of 97: the tokenizer is another model's"};
  ExpectOneMessage(absl::StrCat("eval --model ", folder, kPassages), words);
  ExpectOneMessage(absl::StrCat("eval --model ", folder, " --task multiple_choice:quickstart/questions --limit 2"), words);
  ExpectOutcome(absl::StrCat("generate --model ", folder, " --prompt 'The old house'"), 2, words);
}

TEST(Cli, TextsAreChecked) {
  const std::string dir = TestTempDir();
  const auto expect = [&](const std::string& task, const std::string& contents, const std::vector<std::string>& words) {
    ASSERT_OK(WriteFile(dir + "/t.txt", contents));
    ExpectOneMessage(absl::StrCat("eval --model configs/models/novelist --task ", task, ":", dir, "/t.txt"), words);
  };
  expect("perplexity", "", {"t.txt is empty"});
  expect("perplexity", "A short text.", {"t.txt", "one window needs 2048", "a smaller window"});
  expect("perplexity", "caf\xC3", {"t.txt:1: not UTF-8 text: byte 3"});
  expect("hellaswag", "one\ntwo\n", {"t.txt: 2 lines, not a multiple of 6"});
  expect("hellaswag", "", {"t.txt holds no items"});
}

TEST(Cli, BrokenConfigsAreOneMessage) {
  const std::string path = TestTempDir() + "/c.textproto";
  const auto expect = [&](const std::string& text, const std::vector<std::string>& words) {
    ASSERT_OK(WriteFile(path, text));
    for (const char* command : {"run ", "search ", "train "}) ExpectOutcome(command + path, 2, words);
  };
  for (const char* text : {"name: \"t", "name: 5", "name: \"\xFF\"", "\xFF\xFE", "{", "step"}) expect(text, {"nibble: " + path + ":1:"});
  ASSERT_OK(WriteFile(path, "step { [nibble.rtn] { group_size: -3 } }"));
  ExpectOneMessage(absl::StrCat("quantize --model synthetic:tiny --out x --pipeline ", path), {"c.textproto:1:1: step 0", "group_size"});
}

// A llama2.c checkpoint of holes: two trillion weights.
TEST(Cli, AModelLargerThanMemoryIsRefused) {
  SKIP_WITHOUT_ADDRESS_SPACE();
  const std::string path = TestTempDir() + "/huge.bin";
  const int64_t dim = 65536, ffn = 262144, layers = 32, vocab = 1 << 20, positions = 64, head = 128;
  const int32_t header[] = {dim, ffn, layers, dim / head, dim / head, vocab, positions};
  const int64_t floats = vocab * dim + layers * (2 * dim + 4 * dim * dim + 3 * dim * ffn) + dim + positions * head;
  ASSERT_OK(WriteFile(path, absl::string_view(reinterpret_cast<const char*>(header), sizeof(header))));
  if (::truncate(path.c_str(), 28 + 4 * floats) != 0) GTEST_SKIP() << "the file system has no sparse files of 9 TB";
  const std::vector<std::string> words = {"model '" + path + "' takes 8", " GiB of this machine; take a smaller model"};
  ExpectOneMessage(absl::StrCat("eval --model ", path, kPassages), words);
  ExpectOneMessage(absl::StrCat("bench --model ", path), words);
  const std::string config = WriteConfig(path.substr(0, path.rfind('/')), "");
  ExpectOneMessage(absl::StrCat("run ", config, " --out ", config, ".out --set model.source=", path), words);
}

TEST(Cli, DatasetsSaysWhatIsKnownAndWhereItIs) {
  ExpectOutcome("datasets", 0, {"arc_easy", "mmlu", "files found", "quickstart/passages", "found: ", "licence", "/shared/data"});
  ExpectOutcome("datasets gsm8k", 0, {"gsm8k/train.jsonl", "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465", "MIT"});
  ExpectOutcome("datasets gsm8", 2, {"did you mean 'gsm8k'?"});
  ExpectOutcome("eval --model synthetic:tiny --task arc_eazy", 2, {"did you mean 'arc_easy'?"});
  ExpectOutcome("eval --model synthetic:tiny --task task:/no/such.textproto", 2, {"/no/such.textproto"});
  ExpectOutcome("eval --model synthetic:tiny --task quickstart/questions --set shot=2", 2, {"did you mean 'shots'?"});
  ExpectOutcome("eval --model synthetic:tiny --task quickstart/questions", 2, {"no tokenizer"});
}

TEST(Cli, RunWritesAReportAndResumes) {
  const std::string dir = TestTempDir();
  const std::string config = WriteConfig(dir, "gate { variant: \"w4\" metric: \"size_mib\" max_ratio: 0.9 }\n");
  const std::string run = absl::StrCat("run ", config, " --out ", dir, "/out");
  ExpectOutcome(run, 0, {"12 measured, 0 reused, 0 failed", "PASS w4 size_mib"});
  ExpectOutcome(run, 0, {"0 measured, 12 reused"});
  const Outcome left = Nibble(run + " --dry-run");
  EXPECT_THAT(left.text, ::testing::HasSubstr(absl::StrCat("done: 12 measurements have results in ", dir, "/out")));
  EXPECT_THAT(left.text, ::testing::Not(::testing::HasSubstr("job: ")));
  ExpectOutcome(absl::StrCat(run, " --set variant[w4].step[0].group_size=16"), 0, {"3 measured, 9 reused"});
  ExpectOutcome(absl::StrCat("gate ", dir, "/out"), 0, {"PASS"});
  ExpectOutcome(absl::StrCat("report ", dir, "/out"), 0, {"report.md", "report.html"});
  ASSERT_OK_AND_ASSIGN(const std::string markdown, ReadFile(dir + "/out/report.md"));
  EXPECT_THAT(markdown, ::testing::HasSubstr("| llama32 |"));
  ASSERT_OK_AND_ASSIGN(const std::string csv, ReadFile(dir + "/out/results.csv"));
  EXPECT_THAT(csv, ::testing::HasSubstr("size_mib"));
  ASSERT_OK_AND_ASSIGN(const std::string html, ReadFile(dir + "/out/report.html"));
  EXPECT_THAT(html, ::testing::HasSubstr("<th scope=\"row\">llama32</th>"));
  EXPECT_THAT(html, ::testing::Not(::testing::HasSubstr("not recorded")));  // the runner dates what it measures
  std::filesystem::copy(dir + "/out", dir + "/again");
  ExpectOutcome(absl::StrCat("report ", dir, "/out ", dir, "/again --out ", dir, "/both"), 0, {"both/comparison.md", "both/comparison.html"});
  ASSERT_OK_AND_ASSIGN(const std::string both, ReadFile(dir + "/both/comparison.md"));
  EXPECT_THAT(both, ::testing::HasSubstr("×1.000 of out |"));  // of the size in the other run
  ExpectOutcome(absl::StrCat("report ", dir, "/out --out ", dir, "/both"), 2, {"--out is for several folders"});
  ExpectOutcome(absl::StrCat("report ", dir, "/out ", dir, "/none"), 2, {"none/run.json"});
}

std::string WriteTinyConfig(const std::string& dir, const std::string& metrics) {
  const std::string path = dir + "/tiny.textproto";
  EXPECT_OK(WriteFile(path, absl::StrCat("model { source: \"synthetic:tiny\" } baseline { name: \"bf16\" step { [nibble.baseline] {} } } ", metrics)));
  return path;
}

// What a job has measured is not lost where it cannot be written: the job's report is taken
// when it can.
TEST(Cli, AResultThatCannotBeWrittenIsTakenLater) {
  const std::string dir = TestTempDir(), out = dir + "/out";
  const std::string run = absl::StrCat("run ", WriteTinyConfig(dir, "metric { size {} }"), " --out ", out);
  ASSERT_OK(MakeDirectories(out));
  std::filesystem::create_symlink("no/such/folder", out + "/results.jsonl");
  ExpectOutcome(run, 1, {"STOPPED: cannot append to", "1 measurements have no result", "0 measured, 0 reused, 1 failed; report: "});
  std::string kept;
  for (const auto& entry : std::filesystem::directory_iterator(out + "/jobs")) {
    if (entry.path().extension() == ".json") kept = entry.path().string();
  }
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(kept));
  ASSERT_OK_AND_ASSIGN(nlohmann::json report, ParseJson(text, kept));
  report["metric"][0]["value"] = 12345;  // which no job would measure
  ASSERT_OK(WriteFile(kept, report.dump()));
  std::filesystem::remove(out + "/results.jsonl");
  ExpectOutcome(run, 0, {"1 measured, 0 reused, 0 failed"});
  ASSERT_OK_AND_ASSIGN(const std::string results, ReadFile(out + "/results.jsonl"));
  EXPECT_THAT(results, ::testing::HasSubstr("12345"));
  EXPECT_FALSE(FileExists(kept));
}

TEST(Cli, AModelStaysForMeasurementsThatFailed) {
  const std::string dir = TestTempDir();
  const std::string run =
      absl::StrCat("run ", WriteTinyConfig(dir, "metric { size {} } metric { perplexity { text: \"quickstart/passages\" window: 64 limit: 1 } }"), " --out ", dir, "/out");
  ExpectOutcome(run, 1, {"bf16: built in", "has no tokenizer", "1 measured, 0 reused, 1 failed"});
  const Outcome again = Nibble(run);
  EXPECT_THAT(again.text, ::testing::HasSubstr("0 measured, 1 reused, 1 failed"));
  EXPECT_THAT(again.text, ::testing::Not(::testing::HasSubstr("built in")));
}

TEST(Cli, AJobThatIsThoughtToNeedMoreThanItsLimitIsRefused) {
  SKIP_WITHOUT_ADDRESS_SPACE();
  const std::string dir = TestTempDir();
  const std::string run = absl::StrCat("run ", WriteTinyConfig(dir, "metric { size {} }"), " --threads 1 --out ", dir, "/out");
  ExpectOutcome(run + " --memory-limit 60", 1, {"FAILED: it is thought to need 80 MiB, more than the 60 MiB of --memory-limit; raise the limit"});
  ExpectOutcome(run + " --memory-limit 1000", 0, {"1 measured"});
}

// A text of which a copy does not fit, which no estimate counts.
TEST(Cli, AJobThatTakesMoreThanItsLimitSaysSo) {
  SKIP_WITHOUT_ADDRESS_SPACE();
  const std::string dir = TestTempDir(), config = dir + "/c.textproto", text = dir + "/huge.txt", report = dir + "/report.json";
  ASSERT_OK(WriteFile(text, "x"));
  std::filesystem::resize_file(text, 300 << 20);
  ASSERT_OK(WriteFile(config, absl::StrCat("model { source: \"configs/models/novelist\" } baseline { name: \"bf16\" step { [nibble.baseline] {} } } "
                                           "metric { perplexity { text: \"", text, "\" window: 64 } }")));
  ExpectOutcome(absl::StrCat("plan ", config, " --threads 1 --out ", dir, "/jobs"), 0, {});
  ExpectOutcome(absl::StrCat("job ", dir, "/jobs/bf16.build.textproto --store ", dir, "/models"), 0, {});
  ::setenv("OPENBLAS_NUM_THREADS", "1", 1);  // as for the jobs of a run
  ExpectOutcome(absl::StrCat("job ", dir, "/jobs/bf16.0.textproto --memory-limit 150 --store ", dir, "/models --report ", report), 0, {});
  ::unsetenv("OPENBLAS_NUM_THREADS");
  ASSERT_OK_AND_ASSIGN(const std::string json, ReadFile(report));
  EXPECT_THAT(json, ::testing::HasSubstr("it took more than the 150 MiB of --memory-limit; raise the limit"));
}

// The figures of a run's quality metrics, sizes too.
std::map<std::string, double> FiguresOf(const std::string& folder) {
  std::map<std::string, double> figures;
  const auto text = ReadFile(folder + "/results.json");
  const auto json = text.ok() ? ParseJson(*text, "results.json") : text.status();
  EXPECT_OK(json);
  for (const auto& record : (*json)["records"]) {
    figures[absl::StrCat(record["variant"].get<std::string>(), " ", record["metric"].get<std::string>())] = record["value"].get<double>();
  }
  return figures;
}

TEST(Cli, JobsOfAPlanGatherToTheSameRun) {
  const std::string dir = TestTempDir(), config = dir + "/c.textproto", jobs = dir + "/jobs";
  ASSERT_OK(WriteFile(config, R"(name: "planned"
model { source: "configs/models/novelist" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "w4/group 32" step { [nibble.rtn] { group_size: 32 } } }
variant { name: "twice" step { [nibble.rtn] {} } step { [nibble.rtn] { bits: 8 } } }
metric { perplexity { text: "quickstart/passages" window: 64 limit: 2 } }
metric { divergence { text: "quickstart/passages" window: 64 limit: 2 } }
metric { size {} }
)"));
  const std::string listed = " --variant bf16 --variant 'w4/group 32' --variant twice --metrics ";
  ExpectOutcome(absl::StrCat("plan ", config, " --out ", jobs, listed, 2), 2, {"c.textproto: its build target lists", "metrics = 3", "nibble plan --starlark"});
  ExpectOutcome(absl::StrCat("plan ", config), 2, {"plan needs --out or --starlark"});
  ExpectOutcome(absl::StrCat("plan ", config, " ", config, " --out ", jobs), 2, {"the jobs of one experiment, got 2 configs"});
  ExpectOutcome(absl::StrCat("plan ", config, " ", config, " --starlark ", dir, "/jobs.bzl"), 2, {"is called c.textproto too"});
  ExpectOutcome(absl::StrCat("plan ", config, " --starlark ", dir, "/jobs.bzl"), 0, {});
  ASSERT_OK_AND_ASSIGN(const std::string list, ReadFile(dir + "/jobs.bzl"));
  EXPECT_THAT(list, ::testing::HasSubstr("    \"c.textproto\": struct(\n        metrics = 3,\n        variants = [\n            \"bf16\",\n"
                                         "            \"w4/group 32\",\n            \"twice\",\n        ],\n    ),\n}\n"));
  ExpectOutcome(absl::StrCat("plan ", config, " --out ", jobs, listed, 3), 0, {});
  for (const char* variant : {"bf16", "w4_group_32", "twice"}) {
    const std::string job = absl::StrCat("job ", jobs, "/", variant), stores = absl::StrCat(" --alone --store ", dir, "/", variant, " --store ", dir, "/bf16");
    ExpectOutcome(absl::StrCat(job, ".build.textproto", stores), 0, {});
    for (int i = 0; i < 3; ++i) {
      const std::string report = absl::StrCat(jobs, "/", variant, ".", i, ".json");
      ExpectOutcome(absl::StrCat("gather ", jobs, " --out ", dir, "/early"), 2, {".json"});  // not all have ended
      std::filesystem::remove_all(dir + "/early");
      ExpectOutcome(absl::StrCat(job, ".", i, ".textproto --report ", report, stores), 0, {});
    }
  }
  ExpectOutcome(absl::StrCat("gather ", jobs, " --out ", dir, "/gathered"), 0, {});
  ExpectOutcome(absl::StrCat("run ", config, " --out ", dir, "/run --work ", dir, "/work"), 1, {"already quantized"});
  const auto gathered = FiguresOf(dir + "/gathered");
  EXPECT_EQ(gathered, FiguresOf(dir + "/run"));
  EXPECT_EQ(gathered.count("w4/group 32 size_mib"), 1);
  for (const char* folder : {"/gathered", "/run"}) ExpectOutcome(absl::StrCat("report ", dir, folder, " --recompute"), 0, {"6 of 6 quality metrics are equal"});
  ASSERT_OK_AND_ASSIGN(const std::string markdown, ReadFile(dir + "/gathered/report.md"));
  EXPECT_THAT(markdown, ::testing::HasSubstr("already quantized"));
}

TEST(Cli, QualityIsComputedAgainFromRawRecords) {
  const std::string dir = TestTempDir(), config = dir + "/c.textproto", out = dir + "/out";
  ASSERT_OK(WriteFile(dir + "/words.jsonl", "{\"t\": \"The old house stood at the end of the lane\"}\n{\"t\": \"It was empty\"}\n"));
  for (const char* kind : {"LAST_WORD", "ROLLING"}) {
    ASSERT_OK(WriteFile(absl::StrCat(dir, "/", kind, ".textproto"),
                        absl::StrCat("name: \"", kind, "\" version: \"1\" part { file: \"words.jsonl\" } text: \"{t}\" kind: ", kind)));
  }
  ASSERT_OK(WriteFile(dir + "/EXACT.textproto",
                      "name: \"EXACT\" version: \"1\" part { file: \"words.jsonl\" } context: \"{t}\" answer: \"{t}\" max_tokens: 3 kind: EXACT_MATCH"));
  ASSERT_OK(WriteFile(config, R"(name: "raw"
model { source: "configs/models/novelist" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "w4" step { [nibble.rtn] { group_size: 32 } } }
metric { perplexity { text: "quickstart/passages" window: 64 limit: 2 } }
metric { divergence { text: "quickstart/passages" window: 64 limit: 2 } }
metric { multiple_choice { set: "quickstart/questions" limit: 8 } }
metric { task { task: "LAST_WORD.textproto" } }
metric { task { task: "ROLLING.textproto" } }
metric { task { task: "EXACT.textproto" } }
metric { size {} }
)"));
  const std::string run = absl::StrCat("run ", config, " --threads 2 --out ", out), recompute = absl::StrCat("report ", out, " --recompute");
  ExpectOutcome(run, 0, {"14 measured, 0 reused, 0 failed"});
  ExpectOutcome(recompute, 0, {"EQUAL bf16 perplexity/quickstart/passages: ", "EQUAL w4 kl/", "EQUAL w4 top1_agreement/", "EQUAL w4 accuracy_norm/",
                               "EQUAL w4 word_perplexity/ROLLING", "EQUAL w4 byte_perplexity/", "EQUAL w4 bits_per_byte/", "EQUAL w4 perplexity/LAST_WORD",
                               "EQUAL w4 exact_match/EXACT", "22 of 22 quality metrics are equal"});
  ExpectOutcome(absl::StrCat(recompute, " --out ", dir), 2, {"--recompute is for one folder"});
  std::string lines = ReadFile(out + "/results.jsonl").value();
  const std::string whole = lines;
  ASSERT_OK(WriteFile(out + "/results.jsonl", lines.insert(lines.find("\"value\":") + 8, "1")));
  ExpectOutcome(recompute, 1, {"DIFFERS bf16 perplexity/quickstart/passages: ", "stored as 1", "21 of 22"});
  ASSERT_OK(WriteFile(out + "/results.jsonl", whole));
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(out + "/records")) files.push_back(entry.path().string());
  ASSERT_EQ(files.size(), 12);
  ASSERT_OK(WriteFile(files[0], ReadFile(files[0]).value().substr(0, 100)));
  std::filesystem::remove(files[1]);
  ExpectOutcome(recompute, 1, {absl::StrCat("records are damaged: ", files[0]), absl::StrCat("records are missing: no file ", files[1])});
  ExpectOutcome(run, 0, {"0 measured, 14 reused, 0 failed"});
}

TEST(Cli, OptionsThatWouldDoNothingAreErrors) {
  const std::string run = absl::StrCat("run ", WriteConfig(TestTempDir(), ""), " --dry-run");
  ExpectOutcome(run + " --slurm --time=5", 2, {"--slurm is of no use without --backend slurm"});
  ExpectOutcome(run + " --backend slrum", 2, {"did you mean 'slurm'"});
  ExpectOutcome(run + " --memory-limit 0", 2, {"--memory-limit 0"});
}

TEST(Cli, ADryRunFindsWhatARunWouldRefuse) {
  const std::string dir = TestTempDir();
  ExpectOutcome(absl::StrCat("run ", WriteConfig(dir, ""), " --dry-run --only w5"), 2, {"--only", "w5", "did you mean"});
  ExpectOutcome(absl::StrCat("run ", WriteConfig(dir, ""), " --dry-run --only w4"), 0, {"2 variants, 3 metrics, 0 gates; 6 measurements"});
  ExpectOutcome(absl::StrCat("run ", WriteConfig(dir, "gate { metric: \"sise_mib\" max_ratio: 1 }"), " --dry-run"), 2, {"sise_mib", "did you mean 'size_mib'"});
  ASSERT_OK(WriteFile(dir + "/text.txt", "A text that is learned and measured."));
  const std::string learned = "variant { name: \"g\" step { [nibble.gptq] { data { text: \"text.txt\" window: 4 } } } } metric { perplexity { text: \"text.txt\" window: 4 } }";
  ExpectOutcome(absl::StrCat("run ", WriteConfig(dir, learned), " --dry-run"), 2, {"variant g", "text.txt"});
}

TEST(Cli, ADryRunEstimatesEachJob) {
  const std::string dir = TestTempDir();
  const std::string run = absl::StrCat("run ", WriteConfig(dir, ""), " --dry-run");
  ExpectOutcome(run, 0, {"job: build llama32", "job: measure w4 size_mib", "MiB", "in all on this machine", "4 variants, 3 metrics, 0 gates; 12 measurements"});
  ExpectOutcome(run + " --set model.source=/no/such/model", 0, {"no estimates: ", "/no/such/model", "12 measurements"});
}

TEST(Cli, ResultsJsonHoldsTheRecords) {
  const std::string dir = TestTempDir();
  ExpectOutcome(absl::StrCat("run ", WriteConfig(dir, ""), " --out ", dir, "/out"), 0, {});
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir + "/out/results.json"));
  ASSERT_OK_AND_ASSIGN(const nlohmann::json json, ParseJson(text, "results.json"));
  std::map<std::string, nlohmann::json> found;
  for (const auto& record : json["records"]) {
    for (const char* key : {"variant", "metric", "value", "stderr", "count", "unit", "better", "baseline_value", "arithmetic"}) {
      EXPECT_TRUE(record.contains(key)) << key;
    }
    found[absl::StrCat(record["variant"].get<std::string>(), " ", record["metric"].get<std::string>())] = record;
  }
  for (const char* metric : {"size_mib", "bits_per_weight", "peak_rss_mib", "prefill_tokens_per_s/16", "decode_tokens_per_s/4", "ttft_ms/16"}) {
    for (const char* variant : {"bf16", "w4", "llama32"}) {
      ASSERT_TRUE(found.count(absl::StrCat(variant, " ", metric))) << variant << " " << metric;
      EXPECT_EQ(found[absl::StrCat(variant, " ", metric)]["arithmetic"], "native");
    }
  }
  EXPECT_EQ(found["w4 size_mib"]["better"], "lower");
  EXPECT_EQ(found["w4 decode_tokens_per_s/4"]["better"], "higher");
  EXPECT_LT(found["w4 size_mib"]["value"].get<double>(), found["w4 size_mib"]["baseline_value"].get<double>());
  // Grouped activations have no kernel: no speed is shown for them.
  EXPECT_TRUE(found.count("grouped size_mib"));
  EXPECT_FALSE(found.count("grouped decode_tokens_per_s/4"));
  EXPECT_EQ(json["withheld"].size(), 3u);
  // Each timing has the peaks that were measured beside it, with its threads; the run's start measures none.
  ASSERT_EQ(json["peaks"].size(), 4u);
  for (const auto& peaks : json["peaks"]) {
    for (const char* peak : {"read_bandwidth_gb_s", "fma_peak_gflop_s", "int8_peak_gop_s"}) EXPECT_GT(peaks["machine"].value(peak, 0.0), 0) << peak;
    EXPECT_EQ(peaks["machine"]["peak_threads"], 2);
  }
  ASSERT_OK_AND_ASSIGN(const std::string head, ReadFile(dir + "/out/run.json"));
  EXPECT_THAT(head, ::testing::HasSubstr("\"kernel_table\""));
  EXPECT_THAT(head, ::testing::Not(::testing::HasSubstr("peak_gflop_s")));
}

TEST(Cli, AFailingGateIsNamedAndExits1) {
  const std::string dir = TestTempDir();
  const std::string config = WriteConfig(dir, "gate { variant: \"w4\" metric: \"size_mib\" max_ratio: 0.01 }\n");
  ExpectOutcome(absl::StrCat("run ", config, " --out ", dir, "/out --only w4"), 1, {"FAIL w4 size_mib: ratio"});
  ExpectOutcome(absl::StrCat("gate ", dir, "/out"), 1, {"FAIL w4 size_mib: ratio"});
}

TEST(Cli, AFailedVariantIsARowAndTheRestRuns) {
  const std::string dir = TestTempDir();
  const std::string config =
      WriteConfig(dir, "variant { name: \"twice\" step { [nibble.rtn] {} } step { [nibble.rtn] { bits: 8 } } }\n");
  ExpectOutcome(absl::StrCat("run ", config, " --out ", dir, "/out --only twice --only w4"), 1, {"already quantized", "3 failed"});
  ASSERT_OK_AND_ASSIGN(const std::string markdown, ReadFile(dir + "/out/report.md"));
  EXPECT_THAT(markdown, ::testing::HasSubstr("already quantized"));
  EXPECT_THAT(markdown, ::testing::HasSubstr("| w4 |"));
}

TEST(Cli, QuantizedFoldersLoadEverywhere) {
  const std::string dir = TestTempDir();
  ASSERT_OK(WriteFile(dir + "/p.textproto", "step { [nibble.llama32_ptq] {} }"));
  ExpectOutcome(absl::StrCat("quantize --model synthetic:tiny --pipeline ", dir, "/p.textproto --out ", dir, "/model"), 0, {"size_mib"});
  ExpectOutcome(absl::StrCat("inspect ", dir, "/model"), 0, {"int4 per group of 32", "llama32_ptq"});
  ExpectOutcome(absl::StrCat("inspect --ops ", dir, "/model"), 0, {"A int8 per token dynamic"});
  const std::string bench = absl::StrCat("bench --model ", dir, "/model --prefill 4,8 --depth 3 --streams 1,2 --decode 4 --rounds 2");
  ExpectOutcome(absl::StrCat(bench, " --json ", dir, "/bench.json"), 0, {"native arithmetic", "prefill/8", "batch_decode/2", "q_proj"});
  ExpectOutcome(absl::StrCat(bench, " --compare ", dir, "/bench.json"), 0, {"before, x"});
  ExpectOutcome(absl::StrCat(bench, " --cache int8 --compare ", dir, "/bench.json"), 0, {"note: --compare was measured with cache \"\", this with \"int8\""});
  ExpectOutcome(absl::StrCat(bench, " --cache fp8"), 2, {"--cache: 'fp8'"});
}

// A config for `nibble train` on the repository's own passages, less the second half.
std::string WriteTrainConfig(const std::string& dir, int steps) {
  const std::string path = dir + "/train.textproto", here = std::filesystem::current_path().string();
  const std::string passages = ReadFile("datasets/quickstart/passages.txt").value();
  const size_t half = passages.find('\n', passages.size() / 2);
  EXPECT_OK(WriteFile(dir + "/learned.txt", passages.substr(0, half)));
  EXPECT_OK(WriteFile(dir + "/passages.txt", passages.substr(half)));
  EXPECT_OK(WriteFile(path, absl::StrCat(R"(name: "small"
shape { hidden_size: 32 intermediate_size: 64 num_hidden_layers: 2 num_attention_heads: 4 num_key_value_heads: 2 }
tokenizer: ")", here, R"(/configs/models/novelist/tokenizer.model"
data { text: "learned.txt" window: 64 }
training { steps: )", steps, R"( batch: 4 learning_rate: 1e-2 warmup: 2 checkpoint_seconds: 0.1 }
held_out: "passages.txt"
)")));
  return path;
}

TEST(Cli, TrainWritesAModelThatEverythingLoads) {
  const std::string dir = TestTempDir(), out = dir + "/model";
  ExpectOutcome(absl::StrCat("train --threads 1 ", WriteTrainConfig(dir, 20), " --out ", out), 0, {"20 updates", "perplexity/passages.txt", "model: " + out});
  // The held-out text is none of those to learn from.
  std::string leak = ReadFile(dir + "/train.textproto").value();
  leak.replace(leak.find("learned.txt"), 11, "passages.txt");
  ASSERT_OK(WriteFile(dir + "/leak.textproto", leak));
  ExpectOutcome(absl::StrCat("train ", dir, "/leak.textproto --out ", dir, "/leak"), 2, {"held_out: a step reads", "passages.txt"});
  ExpectOutcome(absl::StrCat("inspect ", out), 0, {"llama, 2 layers, hidden 32"});
  ExpectOutcome(absl::StrCat("generate --model ", out, " --prompt 'The' --tokens 4"), 0, {});
  ASSERT_OK_AND_ASSIGN(const std::string card, ReadFile(out + "/README.md"));
  EXPECT_THAT(card, ::testing::HasSubstr("| updates | 20 |"));
  EXPECT_TRUE(FileExists(out + "/loss.svg") && FileExists(out + "/steps.csv"));
  ExpectOutcome(absl::StrCat("train ", dir, "/train.textproto --set training.steps=0 --out ", out), 2, {"training.steps"});
  ExpectOutcome(absl::StrCat("train ", dir, "/train.textproto --set shape.num_attention_heads=5 --out ", out), 2, {"shape"});
}

TEST(Cli, SearchFindsMixesForSizesAndTimes) {
  const std::string dir = TestTempDir(), config = dir + "/c.textproto";
  std::string text;
  for (int i = 0; i < 20; ++i) absl::StrAppend(&text, "In the ", i, "th year the house was sold, and nobody came to the door any more. ");
  ASSERT_OK(WriteFile(dir + "/text.txt", text));
  ASSERT_OK(WriteFile(config, R"(model { source: "configs/models/novelist" }
candidate { name: "int3" step { [nibble.rtn] { bits: 3 group_size: 32 } } }
candidate { name: "int8" step { [nibble.rtn] {} } }
unit: BLOCK
data { text: "text.txt" window: 64 }
samples: 50
depth: 8
rounds: 1
metric { perplexity { text: "quickstart/passages" window: 64 limit: 2 } }
)"));
  // Without a config the program's own, whose texts need not be on this machine.
  const std::string own = absl::StrCat("search --model configs/models/novelist --threads 1 --set samples=1 --set unit=BLOCK --set data.text=", dir,
                                       "/text.txt --set data.window=64 --set 'metric[0].perplexity.text=quickstart/passages'",
                                       " --set 'metric[0].perplexity.window=64' --set 'metric[0].perplexity.limit=2' --out ", dir, "/own");
  ExpectOutcome(own, 2, {"--budget 100MiB"});
  ExpectOutcome(own + " --budget 2MiB", 0, {"mix_2mib", "int2"});
  ExpectOutcome("search --budget 2MiB", 2, {"give --model"});
  const std::string search = absl::StrCat("search ", config, " --threads 1 --out ", dir, "/out --budget ");
  ExpectOutcome(search + "12parsecs", 2, {"--budget 12parsecs: expected a size such as 700MiB or 1.5GiB, or the time of a decoded token such as 12ms"});
  ExpectOutcome(search + "1e-6ms", 2, {"event calibration.fewer_samples", "a budget of 1e-06 ms is below"});
  ExpectOutcome(search + "0.0045GiB --budget 4 --budget 60000ms", 0, {"mix_4.608mib", "mix_4mib", "mix_60000ms", "ms a token predicted"});
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(dir + "/out/report.md"));
  EXPECT_THAT(report, ::testing::HasSubstr("decode_tokens_per_s"));
  ASSERT_OK_AND_ASSIGN(const std::string results, ReadFile(dir + "/out/results.json"));
  EXPECT_THAT(results, ::testing::HasSubstr("threads: 1"));
}

// Activations before and after rotations, on the reference checkpoint.
TEST(Cli, InspectShowsWhatAPipelineDoesToActivations) {
  const std::string dir = TestTempDir();
  ASSERT_OK(WriteFile(dir + "/rotate.textproto", "step { [nibble.spinquant] {} }\n"));
  const std::string inspect = "inspect configs/models/novelist --tokens 32 --activations ";
  ExpectOutcome(absl::StrCat(inspect, "quickstart/passages --pipeline ", dir, "/rotate.textproto"), 0,
                {"kurtosis after", "model.layers.5.mlp.down_proj"});
  ExpectOutcome(absl::StrCat(inspect, "quickstart/passages"), 0, {"max/mean", "model.layers.0.self_attn.q_proj"});
  ExpectOutcome(absl::StrCat(inspect, "no/such/text"), 2, {"no/such/text"});
}

// Killed as soon as its first checkpoint is there, and run again.
TEST(Cli, AKilledTrainingEndsAtTheSameLoss) {
  const std::string dir = TestTempDir(), config = WriteTrainConfig(dir, 400);
  const Outcome whole = Nibble(absl::StrCat("train --threads 1 ", config, " --out ", dir, "/whole"));
  ASSERT_EQ(whole.status, 0) << whole.text;
  const std::string script = absl::StrCat("tools/nibble train --threads 1 ", config, " --out ", dir, "/parts & pid=$!; while ! ls ", dir,
                                          "/parts/work/train-*/checkpoint.safetensors; do sleep 0.02; done; kill -9 $pid; wait $pid");
  EXPECT_NE(std::system(absl::StrCat("(", script, ") >/dev/null 2>&1").c_str()), 0);
  EXPECT_FALSE(FileExists(dir + "/parts/config.json"));
  const Outcome resumed = Nibble(absl::StrCat("train --threads 1 ", config, " --out ", dir, "/parts"));
  EXPECT_EQ(resumed.status, 0) << resumed.text;
  EXPECT_THAT(resumed.text, ::testing::HasSubstr("going on after step"));
  const auto result = [](const std::string& text) { return text.substr(text.find("400 updates"), text.find("model: ") - text.find("400 updates")); };
  EXPECT_EQ(result(resumed.text), result(whole.text));
  ASSERT_OK_AND_ASSIGN(const std::string a, Sha256OfFile(dir + "/whole/model.safetensors"));
  ASSERT_OK_AND_ASSIGN(const std::string b, Sha256OfFile(dir + "/parts/model.safetensors"));
  EXPECT_EQ(a, b);
}

// The published recipe in one run: trainings shared between variants, recovery
// and loss in the report, finished trainings used again.
TEST(Cli, TrainedVariantsInAReport) {
  const std::string dir = TestTempDir(), here = std::filesystem::current_path().string(), model = dir + "/model";
  ASSERT_EQ(Nibble(absl::StrCat("train --threads 1 ", WriteTrainConfig(dir, 150), " --out ", model)).status, 0);
  const std::string data = absl::StrCat("data { text: \"", here, "/datasets/quickstart/passages.txt\" window: 64 } training { steps: 12 batch: 4 "
                                        "warmup: 2 learning_rate: 3e-3 }");
  const std::string qat = absl::StrCat("step { [nibble.qat] { quantize { [nibble.rtn] { bits: 2 } } ", data, " } }");
  ASSERT_OK(WriteFile(dir + "/e.textproto", absl::StrCat("name: \"t\" allow_test_data: true model { source: \"", model, "\" } baseline { name: \"bf16\" step { [nibble.baseline] {} } }\n",
      "variant { name: \"twin\" step { [nibble.sft] { ", data, " } } }\n",
      "variant { name: \"rtn\" step { [nibble.rtn] { bits: 2 } } }\n",
      "variant { name: \"qat\" ", qat, " untrained: \"rtn\" twin: \"twin\" }\n",
      "variant { name: \"qat_lora_dpo\" ", qat, " step { [nibble.lora] { rank: 4 ", data, " } } step { [nibble.dpo] { data { shuffled { text: \"", here,
      "/datasets/quickstart/passages.txt\" window: 32 } } training { steps: 3 batch: 2 warmup: 1 } } } untrained: \"rtn\" twin: \"twin\" }\n",
      "metric { perplexity { text: \"", here, "/datasets/quickstart/passages.txt\" name: \"p\" window: 64 } }\nmetric { size {} }\n")));
  const std::string run = absl::StrCat("run --threads 1 ", dir, "/e.textproto --out ", dir, "/out --work ", dir, "/work");
  ExpectOutcome(run, 0, {"10 measured, 0 reused, 0 failed"});
  ASSERT_OK_AND_ASSIGN(const std::string report, ReadFile(dir + "/out/report.md"));
  for (const char* text : {"## Recovery", "## Training", "of `twin`", "of `bf16`", "![loss](loss.svg)", "taken from the cache", "adapters"}) {
    EXPECT_THAT(report, ::testing::HasSubstr(text));
  }
  ExpectOutcome(run, 0, {"0 measured, 10 reused, 0 failed"});
}

TEST(Cli, QuantizeWritesAGgufFile) {
  const std::string dir = TestTempDir(), out = dir + "/m.gguf", base = absl::StrCat("quantize --model synthetic:tiny --out ", out, " --pipeline ", dir);
  ASSERT_OK(WriteFile(dir + "/k.textproto", "step { [nibble.kquants] { mix: Q8_0 } }"));
  ASSERT_OK(WriteFile(dir + "/i.textproto", "step { [nibble.rtn] { bits: 4 } }"));
  ExpectOutcome(absl::StrCat(base, "/k.textproto --format ggu"), 2, {"did you mean 'gguf'"});
  ExpectOutcome(absl::StrCat(base, "/i.textproto --format gguf"), 2, {"model.layers.0.", "GGUF cannot hold int4"});
  EXPECT_FALSE(FileExists(out));
  // Its rows of 48 and 100 columns fit no block.
  ExpectOutcome(absl::StrCat(base, "/k.textproto --format gguf"), 0, {"kquants.q8_0_became_fp16", "size_mib"});
  ExpectOutcome(absl::StrCat("inspect ", out), 0, {"fp16"});
}

TEST(Cli, RealModelOnOwnText) {
  const char* gguf = std::getenv("NIBBLE_SMOLLM2_GGUF");
  if (gguf == nullptr || !FileExists(gguf)) GTEST_SKIP() << "needs SmolLM2: run ./nibble fetch smollm2-135m, or set NIBBLE_SMOLLM2_GGUF";
  const std::string dir = TestTempDir();
  ExpectOutcome(absl::StrCat("generate --model ", gguf, " --prompt 'The capital of France is' --tokens 3"), 0, {"Paris"});
  ExpectOutcome(absl::StrCat("eval --model ", gguf, " --task perplexity:quickstart/passages --set window=256 --limit 2 --json ", dir, "/e.json"), 0,
                {"perplexity/quickstart/passages"});
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir + "/e.json"));
  ASSERT_OK_AND_ASSIGN(const nlohmann::json json, ParseJson(text, "e.json"));
  const double perplexity = json["records"][0]["value"];
  EXPECT_GT(perplexity, 5);
  EXPECT_LT(perplexity, 100);
  ExpectOutcome(absl::StrCat("eval --model ", gguf, " --task multiple_choice:quickstart/questions --limit 8"), 0, {"accuracy_norm/quickstart/questions"});
  ExpectOutcome(absl::StrCat("eval --model ", gguf, " --task quickstart/questions --limit 4 --set shots=1"), 0,
                {"accuracy/quickstart/questions", "task=quickstart/questions@1 shots=1"});
  // Each kind of task of a user's own.
  ASSERT_OK(WriteFile(dir + "/i.jsonl", R"({"q": "The capital of France is", "a": "Paris", "bad": "The capital of France are", "full": "The capital of France is Paris"}
)"));
  const auto task = [&](const std::string& fields) {
    const std::string path = dir + "/t.textproto";
    EXPECT_OK(WriteFile(path, absl::StrCat("name: \"mine\" version: \"1\" part { file: \"i.jsonl\" } ", fields)));
    return absl::StrCat("eval --model ", gguf, " --task ", path);
  };
  ExpectOutcome(task("kind: LAST_WORD text: \"{full}\""), 0, {"perplexity/mine 1.", "accuracy/mine 1 "});
  ExpectOutcome(task("kind: EXACT_MATCH context: \"{q}\" answer: \"{a}\" max_tokens: 3 filter { regex: \"[A-Z]\\\\w+\" }"), 0, {"exact_match/mine 1 "});
  ExpectOutcome(task("kind: MINIMAL_PAIR good: \"{q}\" bad: \"{bad}\""), 0, {"accuracy/mine 1 "});
  ExpectOutcome(task("kind: PARTIAL choice: \"{bad}\" choice: \"{q}\" ending: \"{a}\" gold_index: \"1\""), 0, {"accuracy/mine 1 "});
  ExpectOutcome(task("kind: ROLLING text: \"{full}\""), 0, {"word_perplexity/mine", "byte_perplexity/mine", "bits_per_byte/mine"});
  ExpectOutcome(task("kind: ROLLING text: \"{nothing}\""), 2, {"i.jsonl:1: field 'nothing' is missing"});
}

}  // namespace
}  // namespace nibble
