#include "experiments/slurm.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "experiments/job.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Slurm's own default for the size of an array (MaxArraySize) is 1001.
constexpr size_t kArray = 1000;
// What a job may take of what it is thought to need before Slurm ends it: estimates are rough.
constexpr double kMemoryMargin = 1.5;
// Between two looks at a cluster, from the first to all later ones.
constexpr absl::Duration kShortestPause = absl::Milliseconds(250), kLongestPause = absl::Seconds(10);
// A shared file system may show a report so late.
constexpr absl::Duration kReportDelay = absl::Seconds(2);
// Looks at an array that was told to end.
constexpr int kMostLooks = 12;
// The list, the script and the number of a submission: array-<its time>.list and so on.
constexpr char kArrayFiles[] = "array-";

// An array that Slurm has taken.
struct Array {
  std::string number;
  std::string cluster;  // "": the only one

  // A command of Slurm's for the array.
  std::string Command(absl::string_view program, absl::string_view arguments) const {
    return absl::StrCat(program, cluster.empty() ? "" : absl::StrCat(" --clusters=", ShellWord(cluster)), " ", arguments);
  }
};

// Of what sbatch --parsable prints: "1234" or "1234;cluster".
absl::StatusOr<Array> ReadArray(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::pair<std::string, std::string> parts = absl::StrSplit(absl::StripAsciiWhitespace(text), absl::MaxSplits(';', 1));
  const bool is_number = !parts.first.empty() && std::all_of(parts.first.begin(), parts.first.end(), absl::ascii_isdigit);
  if (!is_number) return absl::FailedPreconditionError(absl::StrCat("expected the number of a job in ", path, " from sbatch, got '", text, "'"));
  return Array{parts.first, parts.second};
}

// What a command prints, errors included; "" where it fails.
std::string Output(const std::string& command) { return RunProgram("sh", {"-c", command}, command).value_or(""); }

// Each task of the array takes a line of the list, and leaves its log beside the job.
std::string Script(const std::string& list, int64_t memory_limit) {
  std::error_code error;
  const std::string self = fs::read_symlink("/proc/self/exe", error).string();
  const std::string limit = memory_limit > 0 ? absl::StrCat(" --memory-limit ", memory_limit >> 20) : "";
  return absl::StrCat("#!/bin/sh\nexport ", kBlasThreads, "=1\njob=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" ", ShellWord(list), ")\nexec ", ShellWord(self),
                      " job \"$job\"", limit, " > \"${job%.textproto}.log\" 2>&1\n");
}

// An explicit limit counts; what the user says to sbatch counts more.
std::string MemoryArgument(const SlurmOptions& options) {
  const double bytes = options.memory_limit > 0 ? static_cast<double>(options.memory_limit) : kMemoryMargin * options.memory;
  if (bytes <= 0 || absl::StrContains(options.arguments, "--mem")) return "";
  return absl::StrCat(" --mem=", static_cast<int64_t>(std::ceil(bytes / (1 << 20))));
}

// The shell writes the array's number where a later run looks for it: it does so too when
// this process is killed meanwhile.
absl::StatusOr<Array> Submit(const std::vector<std::string>& files, const SlurmOptions& options, const std::string& base) {
  NIBBLE_RETURN_IF_ERROR(WriteFile(base + ".list", absl::StrJoin(files, "\n") + "\n"));
  NIBBLE_RETURN_IF_ERROR(WriteFile(base + ".sh", Script(base + ".list", options.memory_limit)));
  const std::string command = absl::StrCat("exec sbatch --parsable --job-name=", ShellWord(options.name), " --array=0-", files.size() - 1,
                                           " --cpus-per-task=", options.threads, MemoryArgument(options), options.exclusive ? " --exclusive" : "",
                                           " --output=/dev/null ", options.arguments, " ", ShellWord(base + ".sh"), " > ", ShellWord(base + ".id"));
  NIBBLE_ASSIGN_OR_RETURN(const Ending ending, RunToEnd("sh", {"-c", command}, "sbatch"));
  if (ending.ok()) return ReadArray(base + ".id");
  std::error_code ignored;
  fs::remove(base + ".id", ignored);
  return absl::FailedPreconditionError(absl::StrCat("sbatch ", ending.Text(), "; is this machine part of a Slurm cluster?"));
}

// Whether Slurm still has tasks of the array; none where it does not say.
std::optional<bool> IsLiving(const Array& array) {
  const std::string text = Output(absl::StrCat(array.Command("squeue", absl::StrCat("--noheader --format=%i --jobs=", array.number)), " 2>&1 || echo failed"));
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (std::any_of(lines.begin(), lines.end(), [&](absl::string_view line) { return absl::StartsWith(absl::StripAsciiWhitespace(line), array.number); })) return true;
  const bool failed = absl::StrContains(text, "failed");
  // Slurm forgets jobs some minutes after their end.
  if (failed && !absl::StrContains(text, "Invalid job id")) return std::nullopt;
  return false;
}

// Listing a folder makes a network's file system look at it anew; asking for one file of it
// need not.
std::set<std::string> NamesIn(const std::string& folder) {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) names.insert(entry.path().filename().string());
  return names;
}

std::vector<size_t> WithoutReport(const std::vector<std::string>& files, const std::string& folder) {
  const std::set<std::string> names = NamesIn(folder);
  std::vector<size_t> without;
  for (size_t i = 0; i < files.size(); ++i) {
    if (names.count(fs::path(ReportPath(files[i])).filename().string()) == 0) without.push_back(i);
  }
  return without;
}

// Gives the places of the files that have no report when the array is over.
std::vector<size_t> Await(const Array& array, const std::vector<std::string>& files, const std::string& folder, const Listener& tell) {
  absl::Duration pause = kShortestPause;
  bool is_over = false;
  for (size_t told = files.size();;) {
    std::vector<size_t> without = WithoutReport(files, folder);
    if (without.empty() || is_over) return without;
    if (without.size() < told) tell(absl::StrCat("Slurm: ", files.size() - without.size(), " of ", files.size(), " jobs have ended\n"));
    told = without.size();
    const std::optional<bool> living = IsLiving(array);
    if (!living.has_value()) tell(absl::StrCat("Slurm: squeue does not say whether array ", array.number, " goes on; asking again\n"));
    is_over = living.has_value() && !*living;
    absl::SleepFor(is_over ? kReportDelay : pause);
    pause = std::min(2 * pause, kLongestPause);
  }
}

// "TIMEOUT", or "" where Slurm keeps no accounts and has forgotten the task.
std::string StateOf(const Array& array, const std::string& task) {
  const std::string accounts =
      Output(array.Command("sacct", absl::StrCat("--noheader --parsable2 --allocations --format=State --jobs=", task, " 2>/dev/null")));
  const std::vector<std::string> states = absl::StrSplit(accounts, '\n', absl::SkipWhitespace());
  if (!states.empty()) return states[0];
  std::string text;
  for (absl::string_view word : absl::StrSplit(Output(array.Command("scontrol", absl::StrCat("--oneliner show job ", task, " 2>/dev/null"))), ' ')) {
    if (absl::ConsumePrefix(&word, "JobState=")) absl::StrAppend(&text, word);
    else if (absl::ConsumePrefix(&word, "Reason=") && word != "None") absl::StrAppend(&text, " (", word, ")");
  }
  return text;
}

std::string WhyNoReport(const Array& array, size_t place, const std::string& file) {
  const std::string task = absl::StrCat(array.number, "_", place), state = StateOf(array, task);
  LastLine last;
  last.Take(ReadFile(LogOf(file)).value_or(""));
  return absl::StrCat("Slurm's task ", task, " ended without a report", state.empty() ? "" : ": ", state, last.Get().empty() ? "" : "; its last line: ", last.Get());
}

absl::Status End(const Array& array, const std::string& id_file) {
  std::fprintf(stderr, "ending Slurm's array %s, which an earlier run has left\n", array.number.c_str());
  absl::Duration pause = kShortestPause;
  for (int look = 0; look < kMostLooks; ++look) {
    Output(array.Command("scancel", array.number) + " 2>/dev/null");
    if (const std::optional<bool> living = IsLiving(array); living.has_value() && !*living) return absl::OkStatus();
    absl::SleepFor(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
  return absl::FailedPreconditionError(absl::StrCat("Slurm's array ", array.number, " of an earlier run may still work in this folder; end it (scancel ",
                                                    array.number, ") and remove ", id_file));
}

}  // namespace

std::string LogOf(const std::string& job_file) { return absl::StrCat(absl::StripSuffix(job_file, ".textproto"), ".log"); }

absl::StatusOr<std::map<std::string, std::string>> RunOnSlurm(const std::vector<std::string>& job_files, const SlurmOptions& options,
                                                              const Listener& tell) {
  std::map<std::string, std::string> lost;
  for (size_t begin = 0; begin < job_files.size(); begin += kArray) {
    const size_t end = std::min(begin + kArray, job_files.size());
    const std::vector<std::string> files(job_files.begin() + static_cast<int64_t>(begin), job_files.begin() + static_cast<int64_t>(end));
    const std::string base = absl::StrCat(options.folder, "/", kArrayFiles, absl::ToUnixMicros(absl::Now()));
    tell(absl::StrCat("submitting ", files.size(), " jobs to Slurm", options.exclusive ? ", each alone on its node" : "", "\n"));
    NIBBLE_ASSIGN_OR_RETURN(const Array array, Submit(files, options, base));
    for (const size_t place : Await(array, files, options.folder, tell)) lost[files[place]] = WhyNoReport(array, place, files[place]);
    std::error_code ignored;
    fs::remove(base + ".id", ignored);
  }
  return lost;
}

absl::Status EndLeftArrays(const std::string& folder) {
  for (const std::string& name : NamesIn(folder)) {
    if (!absl::StartsWith(name, kArrayFiles) || !absl::EndsWith(name, ".id")) continue;
    const std::string id_file = absl::StrCat(folder, "/", name);
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(id_file));
    if (absl::StripAsciiWhitespace(text).empty()) continue;  // sbatch did not come to submit it
    NIBBLE_ASSIGN_OR_RETURN(const Array array, ReadArray(id_file));
    NIBBLE_RETURN_IF_ERROR(End(array, id_file));
  }
  return absl::OkStatus();
}

}  // namespace nibble
