#include "team.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

namespace prsr {

namespace {

// Waits last some microseconds. Yielding earlier than this would give the core away for
// milliseconds; never yielding would burn the core that the last member may be waiting for. There
// is no pause instruction in the loop: on virtual machines, many in a row make the host take the
// core away (measured: 120 µs per barrier instead of 0.2 µs).
constexpr int64_t kSpinsBetweenYields = 20000;
// Normally a member waits some microseconds, or some hundred if the system deschedules another
// member briefly. If other processes use the cores, it is milliseconds. This is the total time per
// row above which the cores count as contended.
constexpr std::chrono::nanoseconds kPatience = std::chrono::milliseconds(1);

// Spins until `there()` is true. Returns the nanoseconds since the first yield, or 0 without any.
template <typename Condition>
int64_t spin(const Condition& there) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point first_yield;
  for (int64_t spins = 1; !there(); ++spins) {
    if (spins % kSpinsBetweenYields == 0) {
      if (spins == kSpinsBetweenYields) first_yield = Clock::now();
      sched_yield();
    }
  }
  if (first_yield == Clock::time_point()) return 0;
  return std::chrono::nanoseconds(Clock::now() - first_yield).count();
}

}  // namespace

Team::Team(int64_t size) : size_(size), lines_(size) {}

int64_t Team::size() const { return size_; }

void Team::barrier() {
  if (size_ == 1) return;
  const int64_t round = __atomic_load_n(&round_, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == size_) {
    // No member can arrive for the next round before this store ends the current one.
    __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&round_, round + 1, __ATOMIC_RELEASE);
    return;
  }
  spin([&] { return __atomic_load_n(&round_, __ATOMIC_ACQUIRE) != round; });
}

void Team::count(int64_t member, Kind kind) {
  int64_t& own = lines_[member].counts[kind];
  __atomic_store_n(&own, own + 1, __ATOMIC_RELEASE);
}

bool Team::has(int64_t member, Kind kind, int64_t count) const {
  return __atomic_load_n(&lines_[member].counts[kind], __ATOMIC_ACQUIRE) >= count;
}

void Team::wait(int64_t member, Kind kind, int64_t count) {
  wait_until([&] { return has(member, kind, count); });
}

void Team::wait_while_busy(const Claims& claims, int64_t block) {
  wait_until([&] { return !claims.is_busy(block); });
}

template <typename Condition>
void Team::wait_until(const Condition& there) {
  const int64_t waited = spin(there);
  if (waited) __atomic_add_fetch(&waited_, waited, __ATOMIC_RELAXED);
}

void Team::wait_for_helpers(Kind kind, int64_t count) {
  for (int64_t member = 1; member < size_; ++member) wait(member, kind, count);
}

int64_t Team::next_task() { return __atomic_fetch_add(&next_task_, 1, __ATOMIC_RELAXED); }

bool Team::contended() const {
  return __atomic_load_n(&waited_, __ATOMIC_RELAXED) > kPatience.count();
}

void Team::dismiss() { __atomic_store_n(&dismissed_, true, __ATOMIC_RELAXED); }

bool Team::dismissed() const { return __atomic_load_n(&dismissed_, __ATOMIC_RELAXED); }

Claims::Claims(int64_t blocks) : states_(blocks, kDone) {}

int64_t Claims::blocks() const { return static_cast<int64_t>(states_.size()); }

void Claims::begin(int64_t sub_pixel) {
  for (int64_t& state : states_) __atomic_store_n(&state, 8 * sub_pixel, __ATOMIC_RELAXED);
}

bool Claims::take_early(int64_t sub_pixel, int64_t block) {
  int64_t state = 8 * sub_pixel + kFree;
  return __atomic_compare_exchange_n(&states_[block], &state, 8 * sub_pixel + kEarlyTaken, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

Claims::State Claims::take(int64_t sub_pixel, int64_t block) {
  int64_t state = __atomic_load_n(&states_[block], __ATOMIC_ACQUIRE);
  for (const State ready : {kFree, kEarlyDone}) {
    while (state == 8 * sub_pixel + ready) {
      if (__atomic_compare_exchange_n(&states_[block], &state, 8 * sub_pixel + kTaken, false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return ready;
      }
    }
  }
  return kTaken;
}

void Claims::early_done(int64_t sub_pixel, int64_t block) {
  __atomic_store_n(&states_[block], 8 * sub_pixel + kEarlyDone, __ATOMIC_RELEASE);
}

void Claims::done(int64_t sub_pixel, int64_t block) {
  __atomic_store_n(&states_[block], 8 * sub_pixel + kDone, __ATOMIC_RELEASE);
}

bool Claims::is_done(int64_t block) const {
  return __atomic_load_n(&states_[block], __ATOMIC_ACQUIRE) % 8 == kDone;
}

bool Claims::is_busy(int64_t block) const {
  const int64_t state = __atomic_load_n(&states_[block], __ATOMIC_ACQUIRE) % 8;
  return state == kEarlyTaken || state == kTaken;
}

}  // namespace prsr
