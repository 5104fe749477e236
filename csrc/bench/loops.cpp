// Loops over single operations of an instruction set: benchmarks time the first two, tests check
// the results of the others. Compiled once per instruction set, under the name PRSR_LOOPS.
#include "measure.h"
#include "tile_gemm.h"

namespace {

// Enough accumulators to hide the latency of a multiply-add, and few enough to stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSums = 24;
#else
constexpr int kSums = 12;
#endif

int64_t multiply_add(float* values, int64_t times) {
  Vec sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = load(values + i * kLanes);
  volatile float half = 0.5f, one = 1.0f;  // x·½ + 1 stays at 2; volatile, so that the compiler
                                           // does not know
  const Vec factor = broadcast(half), more = broadcast(one);
  for (int64_t t = 0; t < times; ++t) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + more;
  }
  for (int i = 0; i < kSums; ++i) store(values + i * kLanes, sums[i]);
  return times * kSums * kLanes;
}

float read(const float* from, int64_t lines, int64_t times) {
  constexpr int kAtOnce = 8;
  Vec sums[kAtOnce] = {};
  for (int64_t t = 0; t < times; ++t) {
    for (int64_t i = 0; i < lines * 16; i += kAtOnce * kLanes) {
      for (int k = 0; k < kAtOnce; ++k) sums[k] += load(from + i + k * kLanes);
    }
    asm volatile("" ::: "memory");  // keeps the compiler from reading only once
  }
  for (int k = 1; k < kAtOnce; ++k) sums[0] += sums[k];
  return sum(sums[0]);
}

void each_exponential(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_first(out + i, exp(load_first(x + i, count - i)), count - i);
  }
}

void each_gate(const float* a, const float* b, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec first = load_first(a + i, count - i), second = load_first(b + i, count - i);
    store_first(out + i, gate(first, second), count - i);
  }
}

void each_rounding(const float* x, uint16_t* out, int64_t size, int64_t b) {
  round_features(x, size, b, reinterpret_cast<Pair*>(out));
}

#if defined(PRSR_TILES)
void one_product(const uint32_t* a, const uint32_t* b, float* c, int64_t rows, int64_t pairs,
                 int64_t columns) {
  Tiles tiles;
  tiles.configure(rows, pairs, columns);
  const TileSums sums{c, columns, 0, 0};
  sums.load<1, 1>();
  multiply_chunks<1, 1>({reinterpret_cast<const Pair*>(a), 0, 0, pairs, pairs},
                        {reinterpret_cast<const Pair*>(b), 0, 0, columns, columns}, pairs);
  sums.store<1, 1>();
}
#else
constexpr decltype(prsr::Loops::multiply_tiles) one_product = nullptr;
#endif

}  // namespace

namespace prsr {

const Loops PRSR_LOOPS = {multiply_add, read,          each_exponential,
                          each_gate,    each_rounding, one_product};

}  // namespace prsr
