#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <system_error>

namespace prsr {

namespace {

// About 0.5 ms: longer than Python takes between two rows, and than threads with equal work finish
// apart. Waking a sleeping thread takes longer than a batch can afford.
constexpr int kSpinsBeforeSleep = 2000000;

template <typename Condition>
void spin(const Condition& there) {
  for (int spins = 0; spins < kSpinsBeforeSleep && !there(); ++spins) {
  }
}

ThreadPool* pool = nullptr;
std::once_flag* created = new std::once_flag;

void forget_pool() {
  // In the child of a fork. The parent's pool is abandoned, not destroyed: its locks may be held.
  pool = nullptr;
  created = new std::once_flag;
}

}  // namespace

// A woken thread often starts on the core of the thread that woke it, and the scheduler takes
// longer than an image to separate them. join() moves it away at once, and restricts it to the
// cores that the caller may use.
#if defined(__linux__)
struct ThreadPool::Cores {
  cpu_set_t allowed;
  int current;

  Cores() : current(sched_getcpu()) {
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_ZERO(&allowed);
  }

  // For a thread that was restricted to the cores of `before`; null if it was not restricted yet.
  void join(const Cores* before) const {
    if (CPU_COUNT(&allowed) == 0) return;
    const bool there = before && CPU_EQUAL(&allowed, &before->allowed);
    cpu_set_t others = allowed;
    if (current >= 0 && current < CPU_SETSIZE) CPU_CLR(current, &others);
    if (there && (sched_getcpu() != current || CPU_COUNT(&others) == 0)) return;
    if (CPU_COUNT(&others) > 0) sched_setaffinity(0, sizeof others, &others);
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
};
#else
struct ThreadPool::Cores {
  void join(const Cores*) const {}
};
#endif

ThreadPool::ThreadPool() : cores_(new Cores) {}

ThreadPool& ThreadPool::here() {
  std::call_once(*created, [] {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    pool = new ThreadPool;  // never deleted: its threads sleep until the process ends
  });
  return *pool;
}

bool ThreadPool::run(int64_t count, const std::function<void(int64_t)>& work) {
  const std::unique_lock<std::mutex> serving(serving_, std::try_to_lock);
  if (!serving || !grow(count - 1)) return false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_ = &work;
    *cores_ = Cores();
    wanted_ = count;
    running_ = count - 1;
    __atomic_add_fetch(&calls_, 1, __ATOMIC_RELEASE);
  }
  called_.notify_all();
  work(0);
  spin([this] { return __atomic_load_n(&running_, __ATOMIC_ACQUIRE) == 0; });
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [this] { return running_ == 0; });
  return true;
}

bool ThreadPool::grow(int64_t threads) {
  try {
    while (static_cast<int64_t>(threads_.size()) < threads) {
      const auto member = static_cast<int64_t>(threads_.size()) + 1;
      threads_.emplace_back([this, member] { serve(member); });
    }
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

void ThreadPool::serve(int64_t member) {
  int64_t served = 0;
  bool wanted = true, first = true;
  Cores callers, own;
  for (;;) {
    // A thread that the last call did not use sleeps at once.
    if (wanted) spin([&] { return __atomic_load_n(&calls_, __ATOMIC_ACQUIRE) != served; });
    const std::function<void(int64_t)>* work;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      called_.wait(lock, [&] { return calls_ != served; });
      served = calls_;
      wanted = member < wanted_;
      if (!wanted) continue;
      work = work_;
      callers = *cores_;
    }
    callers.join(first ? nullptr : &own);
    own = callers;
    first = false;
    (*work)(member);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (__atomic_sub_fetch(&running_, 1, __ATOMIC_RELEASE) == 0) finished_.notify_one();
  }
}

}  // namespace prsr
