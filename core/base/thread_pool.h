// A pool of a fixed number of threads.
//
// Work is cut into tasks by the caller, never by the pool, so a result never
// depends on how many threads ran or which thread took which task. Threads take
// the next task when they are free: on a shared machine one of them is often
// slower, and a fixed share would make the others wait. Workers spin briefly between calls, because a decode step makes
// hundreds of short calls and a futex wake-up costs as much as one of them.
#ifndef NIBBLE_CORE_BASE_THREAD_POOL_H_
#define NIBBLE_CORE_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace nibble {

class ThreadPool {
 public:
  // `threads` counts the calling thread; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls task(i, worker) for each i in [0, count), worker in [0, threads());
  // no two tasks run at once under one worker number. Returns when all are done.
  // Not reentrant: a task must not call ParallelFor on the same pool.
  void ParallelFor(int64_t count, const std::function<void(int64_t, int)>& task);

 private:
  void WorkerLoop(int worker);
  void RunTasks(int worker);

  const int threads_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<uint32_t> epoch_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
};

// The number of CPUs this process may use (its affinity mask), at least 1.
int AvailableCpus();

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_THREAD_POOL_H_
