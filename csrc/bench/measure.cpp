#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "instruction_sets.h"

namespace prsr {

namespace {

const Loops& loops_for(const std::string& instruction_set) {
  check_instruction_set(instruction_set);
#if defined(__x86_64__)
#if defined(PRSR_EMULATED_AMX)
  if (instruction_set == "amx-emulated") return loops_amx_emulated;
#endif
#if defined(PRSR_AMX)
  if (instruction_set == "amx") return loops_amx;
#endif
  if (instruction_set == "avx512bf16") return loops_avx512bf16;
  if (instruction_set == "avx512") return loops_avx512;
  if (instruction_set == "avx2") return loops_avx2;
#endif
  return loops_baseline;
}

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};

// Allocates `lines` cache lines and writes all of them: untouched pages would share one physical
// page.
std::unique_ptr<float, Free> ones(int64_t lines) {
  auto* const memory = static_cast<float*>(std::aligned_alloc(64, lines * 64));
  if (!memory) throw std::bad_alloc();
  std::fill_n(memory, lines * 16, 1.0f);
  return std::unique_ptr<float, Free>(memory);
}

// Amount of work per second over 50 ms, after one warm-up call. work() returns its amount.
template <typename Work>
double rate(const Work& work) {
  using Seconds = std::chrono::duration<double>;
  work();
  const auto start = std::chrono::steady_clock::now();
  double done = 0, seconds;
  do {
    done += work();
    seconds = Seconds(std::chrono::steady_clock::now() - start).count();
  } while (seconds < 0.05);
  return done / seconds;
}

// The sum of the results of `threads` concurrent calls.
template <typename Work>
double together(int64_t threads, const Work& work) {
  std::vector<std::future<double>> results;
  for (int64_t t = 0; t < threads; ++t) results.push_back(std::async(std::launch::async, work));
  double total = 0;
  for (auto& result : results) total += result.get();
  return total;
}

}  // namespace

double fma_peak(const std::string& instruction_set, int64_t threads) {
  const Loops& chosen = loops_for(instruction_set);
  return together(threads, [&chosen] {
    const auto values = ones(32);
    return rate([&] { return 2.0 * chosen.multiply_add(values.get(), 4096); });
  });
}

double read_bandwidth(const std::string& instruction_set, int64_t bytes, int64_t threads) {
  const Loops& chosen = loops_for(instruction_set);
  const int64_t lines = std::max<int64_t>(bytes / std::max<int64_t>(threads, 1) / 512, 1) * 8;
  const int64_t times =
      std::max<int64_t>((1 << 20) / (lines * 64), 1);  // many reads per clock query
  return together(threads, [&] {
    const auto memory = ones(lines);
    volatile float sink;
    return rate([&] {
      sink = chosen.read(memory.get(), lines, times);
      return 64.0 * lines * times;
    });
  });
}

double round_trip() {
  constexpr int64_t kTrips = 100, kEnd = -1, kSpinsBetweenYields = 20000;
  struct Count {
    alignas(64) std::atomic<int64_t> value{0};
    // Waits until it is no longer `seen`. Yields now and then, in case both threads have one core.
    int64_t next(int64_t seen) const {
      for (int64_t spins = 1;; ++spins) {
        const int64_t now = value.load(std::memory_order_acquire);
        if (now != seen) return now;
        if (spins % kSpinsBetweenYields == 0) std::this_thread::yield();
      }
    }
    void set(int64_t to) { value.store(to, std::memory_order_release); }
  };
  Count there, back;
  const auto echo = std::async(std::launch::async, [&] {
    for (int64_t seen = there.next(0); seen != kEnd; seen = there.next(seen)) back.set(seen);
  });
  int64_t sent = 0;
  const double trips = rate([&] {
    for (int64_t i = 0; i < kTrips; ++i) {
      there.set(sent + 1);
      sent = back.next(sent);
    }
    return static_cast<double>(kTrips);
  });
  there.set(kEnd);
  return 1 / trips;
}

void exponentials(const std::string& instruction_set, const float* x, float* out, int64_t count) {
  loops_for(instruction_set).exponentials(x, out, count);
}

void gates(const std::string& instruction_set, const float* a, const float* b, float* out,
           int64_t count) {
  loops_for(instruction_set).gates(a, b, out, count);
}

void round_to_bf16(const std::string& instruction_set, const float* x, uint16_t* out, int64_t size,
                   int64_t bundle) {
  loops_for(instruction_set).round_to_bf16(x, out, size, bundle);
}

void multiply_tiles(const std::string& instruction_set, const uint32_t* a, const uint32_t* b,
                    float* c, int64_t rows, int64_t pairs, int64_t columns) {
  const auto multiply = loops_for(instruction_set).multiply_tiles;
  if (!multiply) throw std::invalid_argument("no tiles in " + instruction_set);
  multiply(a, b, c, rows, pairs, columns);
}

}  // namespace prsr
