#include "measure.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <new>
#include <stdexcept>
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
