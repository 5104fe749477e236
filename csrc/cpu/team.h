// Threads that share the work on the same images: synchronisation, and division of work.
#pragma once

#include <cstdint>
#include <vector>

namespace prsr {

// A team exists for one row of one set of images: its counts and tasks are never reset. Every
// member runs the same code. Waiting threads spin, because they wait for microseconds, and yield
// now and then, because there may be more threads than cores.
class Team {
 public:
  explicit Team(int64_t size);
  int64_t size() const;

  // Returns when every member has called it. Everything written before is then visible to all.
  void barrier();

  // Each member counts its progress in two counters. A thread that waits for a count sees
  // everything written before it was reached.
  enum Kind { kDone, kLeft, kKinds };
  void count(int64_t member, Kind kind);
  void wait(int64_t member, Kind kind, int64_t count);
  void wait_for_helpers(Kind kind, int64_t count);
  bool has(int64_t member, Kind kind, int64_t count) const;

  // Returns 0, 1, 2, …: each number once, to whichever member asks first.
  int64_t next_task();

  // Whether members have waited for counts so long that other processes must be using the cores.
  // Waiting at a barrier does not count: at the first one of a row, threads may still have to wake
  // up.
  bool contended() const;

  // Tells the helpers that they are no longer needed. They see it with the leader's next count.
  void dismiss();
  bool dismissed() const;

 private:
  struct alignas(64) Line {
    int64_t counts[kKinds] = {};
  };

  const int64_t size_;
  std::vector<Line> lines_;  // one per member
  alignas(64) int64_t arrived_ = 0;
  alignas(64) int64_t round_ = 0;
  alignas(64) int64_t waited_ = 0;  // nanoseconds
  alignas(64) int64_t next_task_ = 0;
  bool dismissed_ = false;
};

// Which member computes which block of a sub-pixel's logits. A block has an early half, which may
// be computed ahead, and a late half. Members claim what is left of a block by an atomic operation.
class Claims {
 public:
  enum State : uint8_t { kFree, kEarlyTaken, kEarlyDone, kTaken };

  explicit Claims(int64_t blocks);
  int64_t blocks() const;

  // No other member may access the object at the same time.
  void reset();

  bool take_early(int64_t block);
  void early_done(int64_t block);
  // Claims the block and returns its state before: kFree if both halves are left, kEarlyDone if the
  // late half is left, and kTaken if nothing is.
  State take(int64_t block);

 private:
  std::vector<uint8_t> states_;
};

}  // namespace prsr
