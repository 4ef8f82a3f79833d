// A pool of a fixed number of threads.
//
// Work is cut into tasks by the caller, never by the pool, so a result never
// depends on how many threads ran or which thread took which task. Each thread
// has a contiguous share, which keeps neighbours out of each other's cache
// lines, and helps with the others' shares when its own is done: on a shared
// machine one thread is often slower. A worker joins a call by itself, and the
// caller waits only for those that joined: a worker that the machine does not
// schedule costs its help, never a time slice. Workers spin briefly between
// calls, because a decode step makes hundreds of short calls and a futex wake-up
// costs as much as one of them.
#ifndef NIBBLE_CORE_BASE_THREAD_POOL_H_
#define NIBBLE_CORE_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace nibble {

class ThreadPool {
 public:
  // `threads` counts the calling thread; from 1 to 1023 (the nearest is taken).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls task(i, worker) for each i in [0, count), worker in [0, threads());
  // no two tasks run at once under one worker number. Returns when all are done.
  // Not reentrant: a task must not call ParallelFor on the same pool.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t, int)> task);

 private:
  // The tasks [next, end) that a worker has not begun.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void WorkerLoop(int worker);
  // Returns once the gate is no longer `gate`.
  uint32_t WaitForChange(uint32_t gate);
  void RunTasks(int worker);

  const int threads_;
  std::vector<std::thread> workers_;
  const absl::FunctionRef<void(int64_t, int)>* task_ = nullptr;
  std::unique_ptr<Share[]> shares_;
  // The number of the call (its low bits), whether it may be joined, and how many
  // workers have: one word, so that closing a call and joining it exclude each other.
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint32_t> finished_{0};
  std::atomic<bool> stop_{false};
};

// The number of CPUs this process may use (its affinity mask), at least 1.
int AvailableCpus();

// A count that a user gave, or for 0 all CPUs.
inline int ThreadsOrAll(int threads) { return threads > 0 ? threads : AvailableCpus(); }

// task(i) for each i in [0, count), on `pool` where there is one.
template <typename Task>
void ForEach(ThreadPool* pool, int64_t count, const Task& task) {
  if (pool != nullptr) {
    pool->ParallelFor(count, [&](int64_t i, int) { task(i); });
  } else {
    for (int64_t i = 0; i < count; ++i) task(i);
  }
}

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_THREAD_POOL_H_
