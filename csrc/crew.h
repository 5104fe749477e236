// The threads that rows are drawn with. They live on between rows, asleep, so that each stays on
// the core where the scheduler has put it: a thread started for every row spends it moving there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace prsr {

class Crew {
 public:
  // The process's own: a child of fork gets another, for it has none of its parent's threads.
  static Crew& here();

  // Runs work(0) … work(count − 1) at the same time, the first on the calling thread; returns when
  // all are done. Returns false, and has run none, if the crew serves another caller just now or
  // the system has no more threads to give.
  bool run(int64_t count, const std::function<void(int64_t)>& work);

 private:
  struct Cores;  // where a thread may run, and does

  Crew();
  bool grow(int64_t threads);
  void serve(int64_t member);

  std::mutex serving_;  // held by the caller that the crew works for
  std::mutex mutex_;    // guards what follows
  std::condition_variable called_, finished_;
  std::vector<std::thread> threads_;
  const std::unique_ptr<Cores> cores_;  // of the caller
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t wanted_ = 0;  // members of this call
  // These two are also read outside the lock, to see without sleeping what has become of them.
  int64_t running_ = 0;  // members of this call, besides the caller, that have not finished
  int64_t calls_ = 0;    // so far
};

}  // namespace prsr
