// The machine of the emulation: blocks, warps and threads of one cluster, their scheduler, and the
// messages between blocks.
//
// The scheduler resumes fibers in random order, and one warp at a time sleeps until no other can
// run: random order alone would seldom expose a missing barrier. A message to another block arrives
// after a random delay. Shared memory starts as NaN, and a message to a block that has ended is an
// error.
#pragma once

#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation_fibers.h"

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace prsr::emulation {

// A barrier among threads. `round` counts how often all have arrived.
struct Meeting {
  int there = 0;
  uint64_t round = 0;
};

struct Barrier {
  uint16_t arrivals, pending;
  int32_t bytes : 31;
  uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == 8, "as on the device");

struct Warp {
  Meeting meeting;
  uint32_t in[32][10];
  float out[32][4];
};

struct Block {
  int number, rank, running;
  bool published;  // whether other blocks may use the barriers
  std::unique_ptr<unsigned char[]> shared;
  Meeting meeting;
  std::vector<Warp> warps;
};

struct Fiber {
  std::unique_ptr<Context> context;
  Block* block;
  int thread;
  bool done = false;
  // What the fiber waits for: a round of a meeting or a phase of a barrier.
  const Meeting* meeting = nullptr;
  uint64_t round = 0;
  const Barrier* barrier = nullptr;
  uint32_t parity = 0;

  bool ready() const {
    if (meeting) return meeting->round != round;
    if (barrier) return barrier->phase != parity;
    return true;
  }
};

struct Message {
  Block* block;
  size_t to, barrier;
  uint4 value;
};

// One cluster of one launch.
class Machine {
 public:
  Machine(int first_block, int blocks, int threads, size_t shared, std::mt19937& random,
          const std::function<void()>& kernel);
  void run();

  Fiber& self() { return *now_; }
  int ranks() const { return static_cast<int>(blocks_.size()); }
  int threads() const { return threads_; }
  Meeting& cluster_meeting() { return cluster_; }
  Block& block(int rank) { return *blocks_.at(rank); }
  // Suspends the running fiber; others run.
  void yield() { now_->context->switch_to(scheduler_); }
  void post(const Message& message) { messages_.push_back(message); }
  void fail(const std::string& what) {
    if (error_.empty()) error_ = what;
  }

  static inline Machine* running = nullptr;

 private:
  static void enter();
  void resume(Fiber& fiber);
  bool step(int warp);
  void deliver(size_t index);

  std::mt19937& random_;
  const std::function<void()>& kernel_;
  int threads_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Message> messages_;
  Meeting cluster_;
  Context scheduler_;
  Fiber* now_ = nullptr;
  std::string error_;
};

inline Machine::Machine(int first_block, int blocks, int threads, size_t shared,
                        std::mt19937& random, const std::function<void()>& kernel)
    : random_(random), kernel_(kernel), threads_(threads) {
  for (int rank = 0; rank < blocks; ++rank) {
    // Aligned as on the device, and exactly as large as requested.
    auto memory = std::unique_ptr<unsigned char[]>(new unsigned char[shared]);
    std::fill(memory.get(), memory.get() + shared, 0xFF);
    blocks_.push_back(std::make_unique<Block>(Block{first_block + rank,
                                                    rank,
                                                    threads,
                                                    true,
                                                    std::move(memory),
                                                    {},
                                                    std::vector<Warp>(threads / 32)}));
    for (int thread = 0; thread < threads; ++thread) {
      auto fiber = std::make_unique<Fiber>();
      fiber->context = std::make_unique<Context>(&Machine::enter);
      fiber->block = blocks_.back().get();
      fiber->thread = thread;
      fibers_.push_back(std::move(fiber));
    }
  }
}

inline void Machine::enter() {
  Machine& machine = *running;
  machine.kernel_();
  machine.now_->done = true;
  --machine.now_->block->running;
  machine.yield();
}

inline void Machine::resume(Fiber& fiber) {
  fiber.meeting = nullptr;
  fiber.barrier = nullptr;
  now_ = &fiber;
  scheduler_.switch_to(*fiber.context);
}

inline void settle(Barrier& barrier) {
  if (barrier.pending == 0 && barrier.bytes == 0) {
    barrier.phase ^= 1;
    barrier.pending = barrier.arrivals;
  }
}

inline void Machine::deliver(size_t index) {
  const Message message = messages_[index];
  messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(index));
  if (message.block->running == 0) return fail("sent to a block that has ended");
  if (!message.block->published) return fail("sent to a barrier that was not published");
  std::memcpy(message.block->shared.get() + message.to, &message.value, sizeof message.value);
  auto& barrier = *reinterpret_cast<Barrier*>(message.block->shared.get() + message.barrier);
  barrier.bytes -= static_cast<int>(sizeof message.value);
  settle(barrier);
}

// Resumes each runnable fiber of a warp once.
inline bool Machine::step(int warp) {
  bool moved = false;
  const auto first = static_cast<int>(random_() % 32);
  for (int i = 0; i < 32 && error_.empty(); ++i) {
    Fiber& fiber = *fibers_[32 * warp + (first + i) % 32];
    if (fiber.done || !fiber.ready()) continue;
    resume(fiber);
    moved = true;
  }
  return moved;
}

inline void Machine::run() {
  running = this;
  std::vector<int> warps(fibers_.size() / 32);
  for (size_t i = 0; i < warps.size(); ++i) warps[i] = static_cast<int>(i);
  const auto pick = [&](size_t count) { return static_cast<size_t>(random_() % count); };
  int sleeper = warps[pick(warps.size())];
  while (error_.empty()) {
    bool moved = false;
    std::shuffle(warps.begin(), warps.end(), random_);
    for (const int warp : warps) {
      if (warp == sleeper) continue;
      // Several times, so that warps get far ahead of each other.
      while (step(warp)) {
        moved = true;
        if (random_() % 16 == 0) break;
      }
      if (!messages_.empty() && random_() % 4 == 0) {
        deliver(pick(messages_.size()));
        moved = true;
      }
    }
    if (moved) continue;
    if (!messages_.empty()) {
      deliver(pick(messages_.size()));
      continue;
    }
    if (std::all_of(fibers_.begin(), fibers_.end(), [](const auto& f) { return f->done; })) return;
    // No other warp can run: the sleeper does, and occasionally another falls asleep.
    if (!step(sleeper) && error_.empty()) fail("deadlock");
    if (random_() % 8 == 0) sleeper = warps[pick(warps.size())];
  }
  throw std::runtime_error(error_);
}

// Launches a grid: its clusters run one after another, in random order.
inline void launch(int grid, int cluster, int threads, size_t shared, uint32_t seed,
                   const std::function<void()>& kernel) {
  std::mt19937 random(seed);
  std::vector<int> clusters(grid / cluster);
  for (size_t i = 0; i < clusters.size(); ++i) clusters[i] = static_cast<int>(i);
  std::shuffle(clusters.begin(), clusters.end(), random);
  for (const int c : clusters) Machine(c * cluster, cluster, threads, shared, random, kernel).run();
}

inline Machine& machine() { return *Machine::running; }
inline Fiber& self() { return machine().self(); }

// Arrives at a meeting and waits for the others; the last thread first performs `work`.
template <typename Work>
void meet(Meeting& meeting, int count, const Work& work) {
  if (++meeting.there == count) {
    work();
    meeting.there = 0;
    ++meeting.round;
    return;
  }
  self().meeting = &meeting;
  self().round = meeting.round;
  machine().yield();
}
inline void meet(Meeting& meeting, int count) {
  meet(meeting, count, [] {});
}

}  // namespace prsr::emulation
