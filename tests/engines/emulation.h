// csrc/cuda/device.h on a CPU: a block's threads are fibers, the blocks of a cluster run side by
// side, and a warp's instructions are collective.
//
// Fibers go on in random order, and one warp at a time sleeps until nobody else can move: shuffling
// alone would seldom show a barrier that is missing. What one block sends another arrives some time
// later. Shared memory begins as NaN, and what is sent to a block that has ended is an error.
// Tensor cores truncate their sums here, and tanh has the error that the instruction may have.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define PRSR_DEVICE inline
#define PRSR_BOTH inline

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

// Where execution goes on: a stack of its own, switched by hand, for the C library's way asks the
// kernel each time.
class Context {
 public:
  // The one that runs already.
  Context() = default;
  explicit Context(void (*entry)());
  void switch_to(Context& other);

 private:
  static constexpr size_t kStack = 64 * 1024;
  std::unique_ptr<char[]> stack_;
  void* pointer_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_ = nullptr;
  void (*entry_)() = nullptr;
  static inline Context *from_ = nullptr, *to_ = nullptr;
  static void start();
  static void arrived();
};

#if !defined(__x86_64__)
#error "the emulation switches stacks by hand, for x86-64 alone so far"
#endif

extern "C" void prsr_switch(void** from, void* to);
__asm__(R"(
  .pushsection .text
  .weak prsr_switch
  .type prsr_switch, @function
prsr_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .popsection
)");

inline Context::Context(void (*entry)()) : stack_(new char[kStack]), size_(kStack), entry_(entry) {
  bottom_ = stack_.get();
  auto top = reinterpret_cast<uintptr_t>(stack_.get() + kStack) & ~uintptr_t{15};
  // As a call leaves it: the return address, which start() never uses, is at 8 beyond 16.
  auto* frame = reinterpret_cast<void**>(top) - 8;
  std::fill(frame, frame + 8, nullptr);
  frame[6] = reinterpret_cast<void*>(&Context::start);
  pointer_ = frame;
}

inline void Context::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to_->fake_, &from_->bottom_, &from_->size_);
#endif
}

inline void Context::start() {
  arrived();
  to_->entry_();
}

inline void Context::switch_to(Context& other) {
  from_ = this;
  to_ = &other;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_, other.bottom_, other.size_);
#endif
  prsr_switch(&pointer_, other.pointer_);
  arrived();
}

// Threads that wait for each other. `round` counts how often all have come.
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
  bool published;  // whether other blocks may know the barriers
  std::unique_ptr<unsigned char[]> shared;
  Meeting meeting;
  std::vector<Warp> warps;
};

struct Fiber {
  std::unique_ptr<Context> context;
  Block* block;
  int thread;
  bool done = false;
  // What it waits for: the end of a meeting's round or of a barrier's phase.
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
  // The fiber that runs stops; others go on.
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
    // Aligned as on the device, and not a byte more than was asked for.
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

// Resumes those of a warp's fibers that can go on, once each.
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
      // For a while, so that warps get far ahead of each other.
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
    // Nobody else can move: the sleeper does, and now and then another falls asleep.
    if (!step(sleeper) && error_.empty()) fail("deadlock");
    if (random_() % 8 == 0) sleeper = warps[pick(warps.size())];
  }
  throw std::runtime_error(error_);
}

// Launches a grid: its clusters one after another, in random order.
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

// Comes to a meeting and waits for the others; the last one does `work` first.
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

inline float from_bf16(uint32_t half) {
  const uint32_t bits = half << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float from_fp16(uint32_t half) {
  const uint32_t exponent = half >> 10 & 31;
  const float mantissa = static_cast<float>(half & 1023), sign = half & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25)
                          : std::ldexp(mantissa, -24));
}
// All numbers of two bytes as floats.
template <float (*From)(uint32_t)>
const std::array<float, 65536>& all() {
  static const std::array<float, 65536> table = [] {
    std::array<float, 65536> t{};
    for (uint32_t i = 0; i < t.size(); ++i) t[i] = From(i);
    return t;
  }();
  return table;
}

inline float truncated(double x) {
  const float nearest = static_cast<float>(x);
  return std::abs(static_cast<double>(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.f)
                                                              : nearest;
}

// A warp's product: every lane brings its operands, the last one computes for all.
template <int Inputs, typename Unpack>
void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
              const Unpack& unpack) {
  Warp& warp = self().block->warps[self().thread / 32];
  const int lane = self().thread % 32;
  std::memcpy(warp.in[lane], a, sizeof a);
  warp.in[lane][4] = b0;
  warp.in[lane][5] = b1;
  std::memcpy(warp.in[lane] + 6, d, sizeof d);
  meet(warp.meeting, 32, [&] {
    double rows[16][Inputs], columns[Inputs][8];
    for (int l = 0; l < 32; ++l) unpack(warp.in[l], l, rows, columns);
    for (int row = 0; row < 16; ++row) {
      double sums[8] = {};
      for (int k = 0; k < Inputs; ++k) {
        for (int column = 0; column < 8; ++column)
          sums[column] += rows[row][k] * columns[k][column];
      }
      for (int column = 0; column < 8; ++column) {
        const int l = row % 8 * 4 + column / 2, i = row / 8 * 2 + column % 2;
        float before;
        std::memcpy(&before, &warp.in[l][6 + i], 4);
        warp.out[l][i] = truncated(before + sums[column]);
      }
    }
  });
  std::memcpy(d, warp.out[lane], sizeof d);
  meet(warp.meeting, 32);
}

template <float (*From)(uint32_t)>
void multiply_halves(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply<16>(d, a, b0, b1,
               [](const uint32_t* in, int l, double (&rows)[16][16], double (&columns)[16][8]) {
                 const auto& table = all<From>();
                 for (int i = 0; i < 6; ++i) {
                   for (int h = 0; h < 2; ++h) {
                     const double x = table[in[i] >> 16 * h & 0xFFFF];
                     if (i < 4) {
                       rows[l / 4 + i % 2 * 8][l % 4 * 2 + i / 2 * 8 + h] = x;
                     } else {
                       columns[l % 4 * 2 + i % 2 * 8 + h][l / 4] = x;
                     }
                   }
                 }
               });
}

// What lanes exchange.
inline float exchange(float value, int from) {
  Warp& warp = self().block->warps[self().thread / 32];
  std::memcpy(warp.in[self().thread % 32], &value, 4);
  meet(warp.meeting, 32);
  std::memcpy(&value, warp.in[from], 4);
  meet(warp.meeting, 32);
  return value;
}

}  // namespace prsr::emulation

namespace prsr::device {

using emulation::Barrier;
using emulation::self;

constexpr bool kClusters = true;

inline int thread() { return self().thread; }
inline int lane() { return self().thread % 32; }
inline int warp() { return self().thread / 32; }
inline int block() { return self().block->number; }
inline int64_t clock() { return 0; }
inline int rank() { return self().block->rank; }
inline int ranks() { return emulation::machine().ranks(); }
inline unsigned char* shared_memory() { return self().block->shared.get(); }

inline void block_barrier() {
  emulation::meet(self().block->meeting, emulation::machine().threads());
}
inline void cluster_barrier() {
  emulation::meet(emulation::machine().cluster_meeting(), emulation::machine().threads() * ranks());
}

inline float shuffle(float value, int from) { return emulation::exchange(value, from); }
inline float shuffle_up(float value, int by) {
  return emulation::exchange(value, lane() < by ? lane() : lane() - by);
}
inline float shuffle_xor(float value, int mask) {
  return emulation::exchange(value, lane() ^ mask);
}
inline uint32_t ballot(bool value) {
  emulation::Warp& warp = self().block->warps[self().thread / 32];
  warp.in[lane()][0] = value;
  emulation::meet(warp.meeting, 32);
  uint32_t bits = 0;
  for (int l = 0; l < 32; ++l) bits |= warp.in[l][0] << l;
  emulation::meet(warp.meeting, 32);
  return bits;
}
inline int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }
inline int highest_bit(uint32_t bits) { return 31 - __builtin_clz(bits); }
inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::multiply_halves<emulation::from_bf16>(d, a, b0, b1);
}
inline void mma_fp16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::multiply_halves<emulation::from_fp16>(d, a, b0, b1);
}
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::multiply<8>(
      d, a, b0, b1, [](const uint32_t* in, int l, double (&rows)[16][8], double (&columns)[8][8]) {
        for (int i = 0; i < 6; ++i) {
          const double x = float_of(in[i] & 0xFFFFE000);
          if (i < 4) {
            rows[l / 4 + i % 2 * 8][l % 4 + i / 2 * 4] = x;
          } else {
            columns[l % 4 + i % 2 * 4][l / 4] = x;
          }
        }
      });
}

inline uint32_t to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  return std::isnan(x) ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
inline uint32_t to_fp16(float x) {
  const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return 0x7E00;
  x = std::abs(x);
  if (x >= 65520) return sign | 0x7C00;
  int exponent;
  std::frexp(x, &exponent);
  exponent = std::max(exponent, -13);
  const auto n = static_cast<uint32_t>(std::nearbyint(std::ldexp(x, 11 - exponent)));
  if (n < 1024) return sign | n;
  return sign | ((static_cast<uint32_t>(exponent + 14) << 10) + (n - 1024));
}
inline uint32_t pack_bf16(float lower, float upper) {
  return to_bf16(lower) | to_bf16(upper) << 16;
}
inline uint32_t pack_fp16(float lower, float upper) {
  return to_fp16(lower) | to_fp16(upper) << 16;
}
inline float lower_fp16(uint32_t both) { return emulation::from_fp16(both & 0xFFFF); }
inline float upper_fp16(uint32_t both) { return emulation::from_fp16(both >> 16); }
// Half a unit is rounded away from zero; what lies below is no part of the number.
inline uint32_t to_tf32(float x) { return bits_of(x) + 0x1000; }

inline float power_of_two(float x) { return std::exp2(x); }
inline float reciprocal(float x) { return 1 / x; }
inline float tanh_approximate(float x) {
  const float y = std::tanh(x);
  // To 11 bits, which is half the error that is allowed.
  return float_of((bits_of(y) + 0x800) & 0xFFFFF000);
}

inline void init(Barrier* barrier, int arrivals) {
  *barrier = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0};
  self().block->published = false;
}
inline void publish_barriers() { self().block->published = true; }
inline void arrive_expecting(Barrier* barrier, int bytes) {
  barrier->bytes += bytes;
  --barrier->pending;
  emulation::settle(*barrier);
  emulation::machine().yield();
}
inline void wait(Barrier* barrier, uint32_t parity) {
  if (barrier->phase != parity) return;
  self().barrier = barrier;
  self().parity = parity;
  emulation::machine().yield();
}
inline void send(uint4* to, const uint4& value, Barrier* barrier, int rank) {
  const auto* const base = shared_memory();
  emulation::machine().post({&emulation::machine().block(rank),
                             static_cast<size_t>(reinterpret_cast<unsigned char*>(to) - base),
                             static_cast<size_t>(reinterpret_cast<unsigned char*>(barrier) - base),
                             value});
}

}  // namespace prsr::device

#define PRSR_SHARED(name) unsigned char* const name = prsr::device::shared_memory()
