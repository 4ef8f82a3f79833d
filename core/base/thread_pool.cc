#include "core/base/thread_pool.h"

#include <sched.h>

#include <algorithm>

#include "core/base/check.h"

namespace nibble {
namespace {

// About 50 microseconds of polling before a worker sleeps.
constexpr int kSpins = 20000;

// Parts of the gate word.
constexpr uint32_t kJoined = 0x3ff;
constexpr uint32_t kOpen = 0x400;
constexpr uint32_t kCall = 0x800;

uint32_t CallOf(uint32_t gate) { return gate / kCall; }

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(std::clamp<int>(threads, 1, kJoined)), shares_(new Share[threads_]) {
  for (int w = 1; w < threads_; ++w) workers_.emplace_back([this, w] { WorkerLoop(w); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  gate_.fetch_add(kCall, std::memory_order_release);
  gate_.notify_all();
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

uint32_t ThreadPool::WaitForChange(uint32_t gate) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const uint32_t now = gate_.load(std::memory_order_acquire);
    if (now != gate) return now;
    CpuRelax();
  }
  gate_.wait(gate, std::memory_order_acquire);
  return gate_.load(std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t done = 0;  // the last call that this worker joined
  uint32_t gate = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    if ((gate & kOpen) == 0 || CallOf(gate) == done) {
      gate = WaitForChange(gate);
    } else if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) {
      done = CallOf(gate);
      RunTasks(worker);
      finished_.fetch_add(1, std::memory_order_release);
    }
  }
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t, int)> task) {
  NIBBLE_CHECK((gate_.load(std::memory_order_acquire) & kOpen) == 0);
  if (threads_ == 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  task_ = &task;
  for (int w = 0; w < threads_; ++w) {
    shares_[w].end = count * (w + 1) / threads_;
    shares_[w].next.store(count * w / threads_, std::memory_order_relaxed);
  }
  finished_.store(0, std::memory_order_relaxed);
  const uint32_t call = CallOf(gate_.load(std::memory_order_relaxed)) + 1;
  gate_.store(call * kCall | kOpen, std::memory_order_release);
  gate_.notify_all();
  RunTasks(0);
  const uint32_t joined = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & kJoined;
  for (int spin = 0; finished_.load(std::memory_order_acquire) != joined; ++spin) {
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
