#include "core/base/thread_pool.h"

#include <sched.h>

#include <algorithm>

#include "core/base/check.h"

namespace nibble {
namespace {

// About 50 microseconds of polling before a worker sleeps.
constexpr int kSpins = 20000;

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(std::max(1, threads)), shares_(new Share[threads_]) {
  for (int w = 1; w < threads_; ++w) workers_.emplace_back([this, w] { WorkerLoop(w); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::RunTasks(int worker) {
  for (int i = 0; i < threads_; ++i) {
    Share& share = shares_[(worker + i) % threads_];
    while (true) {
      const int64_t task = share.next.fetch_add(1, std::memory_order_relaxed);
      if (task >= share.end) break;
      (*task_)(task, worker);
    }
  }
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && epoch_.load(std::memory_order_acquire) == seen; ++spin) CpuRelax();
    while (epoch_.load(std::memory_order_acquire) == seen) epoch_.wait(seen, std::memory_order_acquire);
    ++seen;
    if (stop_.load(std::memory_order_acquire)) return;
    RunTasks(worker);
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t, int)> task) {
  NIBBLE_CHECK(pending_.load(std::memory_order_acquire) == 0);
  if (count <= 0) return;
  task_ = &task;
  if (threads_ == 1 || count == 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  for (int w = 0; w < threads_; ++w) {
    shares_[w].end = count * (w + 1) / threads_;
    shares_[w].next.store(count * w / threads_, std::memory_order_relaxed);
  }
  pending_.store(threads_ - 1, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  RunTasks(0);
  for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin) {
    CpuRelax();
    if (spin > kSpins) std::this_thread::yield();
  }
}

int AvailableCpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace nibble
