// The threads that draw rows. They sleep between calls instead of being created anew, so that each
// stays on the core where the scheduler has put it: a new thread would spend the time of a whole
// row on migrating.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace prsr {

class ThreadPool {
 public:
  // The pool of this process. A child of fork gets a new one, because it has none of its parent's
  // threads.
  static ThreadPool& here();

  // Runs work(0) … work(count − 1) concurrently, the first on the calling thread, and returns when
  // all are done. Returns false, and runs none, if the pool is serving another caller or the system
  // cannot create the threads.
  bool run(int64_t count, const std::function<void(int64_t)>& work);

 private:
  struct Cores;  // the cores that a thread may use, and the one that it is on

  ThreadPool();
  bool grow(int64_t threads);
  void serve(int64_t member);

  std::mutex serving_;  // held by the caller being served
  std::mutex mutex_;    // guards the members below
  std::condition_variable called_, finished_;
  std::vector<std::thread> threads_;
  const std::unique_ptr<Cores> cores_;  // of the caller
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t wanted_ = 0;  // threads in this call
  // Also read without the lock, while spinning.
  int64_t running_ = 0;  // threads in this call, other than the caller, that have not finished
  int64_t calls_ = 0;    // calls so far
};

}  // namespace prsr
