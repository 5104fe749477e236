// Threads that share the work on the same pictures, and wait for each other at marks in it.
#pragma once

#include <cstdint>

namespace prsr {

// Every member runs the same code and meets the others at the same marks. Waiting spins, for the
// marks are microseconds apart, and yields now and then, for there may be more threads than cores.
class Team {
 public:
  explicit Team(int64_t size) : size_(size) {}
  int64_t size() const { return size_; }

  // Returns when every member is here; what each wrote before is then seen by all.
  void meet();

  // How often a member has waited so long that it gave its core away.
  int64_t yields() const;

 private:
  const int64_t size_;
  alignas(64) int64_t arrived_ = 0;
  alignas(64) int64_t round_ = 0;
  alignas(64) int64_t yields_ = 0;
};

}  // namespace prsr
