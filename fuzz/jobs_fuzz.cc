// Jobs of a run and what they leave: a job as text, a plan, the report of its build "b" and
// that of its measurement "m", parted by lines "%%".

#include "experiments/gather.h"
#include "experiments/job.h"
#include "fuzz/input.h"
#include "reports/run_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 4);
  const fuzz::ScratchFolder folder;
  const std::string path = folder.Put("job.textproto", parts[0]);
  const auto job = ReadJob(path);
  fuzz::CheckError(job.status(), path, size);
  if (job.ok()) NIBBLE_FUZZ_EXPECT(job->has_build() != job->has_measurement());
  folder.Put("plan.json", parts[1]);
  folder.Put("b.json", parts[2]);
  folder.Put("m.json", parts[3]);
  const std::string run = folder.path() + "/run";
  const absl::Status gathered = GatherReports(folder.path(), run);
  fuzz::CheckError(gathered, "", size);
  if (gathered.ok()) fuzz::CheckError(ReadRunLog(run).status(), ".json", size);
  return 0;
}
