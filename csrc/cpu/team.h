// Threads that share the work on the same images: synchronisation, and division of work.
#pragma once

#include <cstdint>
#include <vector>

namespace prsr {

class Claims;

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
  // Returns when no member computes this block.
  void wait_while_busy(const Claims& claims, int64_t block);

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

  template <typename Condition>
  void wait_until(const Condition& there);

  const int64_t size_;
  std::vector<Line> lines_;  // one per member
  alignas(64) int64_t arrived_ = 0;
  alignas(64) int64_t round_ = 0;
  alignas(64) int64_t waited_ = 0;  // nanoseconds
  alignas(64) int64_t next_task_ = 0;
  bool dismissed_ = false;
};

// How far each block of a sub-pixel's logits is, and which member computes it. A block has an early
// half, which may be computed before the last hidden units are known, and a late half.
class Claims {
 public:
  enum State : uint8_t { kFree, kEarlyTaken, kEarlyDone, kTaken, kDone };

  explicit Claims(int64_t blocks);
  int64_t blocks() const;

  // Begins another sub-pixel, with all blocks free. Only when all blocks of the one before are
  // done.
  void begin(int64_t sub_pixel);

  // Claim the early half of a block, or what is left of it, unless another member has it or the
  // object serves another sub-pixel by now. take() returns the state before, kFree or kEarlyDone,
  // or kTaken.
  bool take_early(int64_t sub_pixel, int64_t block);
  State take(int64_t sub_pixel, int64_t block);
  void early_done(int64_t sub_pixel, int64_t block);
  void done(int64_t sub_pixel, int64_t block);

  bool is_done(int64_t block) const;
  // Whether a member computes one of its halves now.
  bool is_busy(int64_t block) const;

 private:
  // 8 times the sub-pixel, plus the state: a member that is late claims nothing of a later
  // sub-pixel.
  std::vector<int64_t> states_;
};

}  // namespace prsr
