// The folder of a run: run.json and results.jsonl, parted by a line "%%"; gates and the
// report that follow from them.

#include "experiments/result_log.h"
#include "fuzz/input.h"
#include "core/base/json.h"
#include "reports/gate.h"
#include "reports/report.h"
#include "reports/run_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 2);
  const fuzz::ScratchFolder folder;
  folder.Put("run.json", parts[0]);
  folder.Put("results.jsonl", parts[1]);
  NIBBLE_FUZZ_EXPECT(ResultLog::Open(folder.path()).ok());
  const auto log = ReadRunLog(folder.path());
  fuzz::CheckError(log.status(), ".json", size);
  if (!log.ok()) return 0;
  (void)FormatGates(EvaluateGates(log->run, log->results));
  const Report report = MakeReport(log->run, log->results, log->notes);
  NIBBLE_FUZZ_EXPECT(ParseJson(report.json, "results.json").ok());
  return 0;
}
