// Threads that share the work on the same images: how they wait for each other, and how they
// divide what any of them may do.
#pragma once

#include <cstdint>
#include <vector>

namespace prsr {

// It is made for one row of one set of images: its counts and tasks are never set back.
// Every member runs the same code. Waiting spins, for what is waited for is microseconds away, and
// yields now and then, for there may be more threads than cores.
class Team {
 public:
  explicit Team(int64_t size);
  int64_t size() const;

  // Returns when every member is here; what each wrote before is then seen by all.
  void meet();

  // A member counts what it has done, of two kinds; whoever waits for a count sees all that was
  // written before it was reached.
  enum Kind { kDone, kLeft, kKinds };
  void count(int64_t member, Kind kind);
  void wait(int64_t member, Kind kind, int64_t count);
  void wait_for_helpers(Kind kind, int64_t count);
  bool has(int64_t member, Kind kind, int64_t count) const;

  // Numbers from 0 on, each for whoever asks for it first.
  int64_t next_task();

  // Whether members have waited for counts so long that others must be wanting the cores too.
  // Meetings do not tell: at a row's first, threads may have to be woken.
  bool contended() const;

  // Tells the helpers that they are not waited for any more, once they see a count of the lead's.
  void dismiss();
  bool dismissed() const;

 private:
  struct alignas(64) Line {
    int64_t counts[kKinds] = {};
  };

  const int64_t size_;
  std::vector<Line> lines_;  // of each member
  alignas(64) int64_t arrived_ = 0;
  alignas(64) int64_t round_ = 0;
  alignas(64) int64_t waited_ = 0;  // nanoseconds
  alignas(64) int64_t next_task_ = 0;
  bool dismissed_ = false;
};

// Who does which part of some work in blocks. A block has an early half, which may be done ahead,
// and a late half; whoever comes first takes what is left of it.
class Claims {
 public:
  enum State : uint8_t { kFree, kEarlyTaken, kEarlyDone, kTaken };

  explicit Claims(int64_t blocks);
  int64_t blocks() const;

  // Nobody else may be at it.
  void reset();

  bool take_early(int64_t block);
  void early_done(int64_t block);
  // What was left of the block, which is now the caller's: kFree for both halves, kEarlyDone for
  // the late one, and kTaken for nothing.
  State take(int64_t block);

 private:
  std::vector<uint8_t> states_;
};

}  // namespace prsr
