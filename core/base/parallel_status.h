// ParallelFor over tasks that can fail.
#ifndef NIBBLE_CORE_BASE_PARALLEL_STATUS_H_
#define NIBBLE_CORE_BASE_PARALLEL_STATUS_H_

#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "core/base/thread_pool.h"

namespace nibble {

// Calls task(i, worker) -> absl::Status for each i in [0, count), on `pool`
// where there is one. All tasks run; the error of the lowest i that failed is
// returned, whatever the number of threads.
template <typename Task>
absl::Status ParallelForStatus(ThreadPool* pool, int64_t count, const Task& task) {
  std::mutex mutex;
  absl::Status first;
  int64_t failed = count;
  const auto run = [&](int64_t i, int worker) {
    const absl::Status status = task(i, worker);
    if (status.ok()) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (i < failed) {
      failed = i;
      first = status;
    }
  };
  if (pool != nullptr) {
    pool->ParallelFor(count, run);
  } else {
    for (int64_t i = 0; i < count; ++i) run(i, 0);
  }
  return first;
}

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_PARALLEL_STATUS_H_
