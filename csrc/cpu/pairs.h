// Operands of the products in bf16: pairs of bfloat16 numbers (SPEC, section 2).
//
// The operands of a GEMM have one type: float, or Pair for two successive inputs in bfloat16.
// Either takes 32 bits, so that the same kernels serve both: only multiply_add() differs.
#pragma once

#include <type_traits>

#include "operands.h"
#include "vec.h"

namespace {

// Inputs 2i and 2i + 1 of a GEMM.
struct alignas(4) Pair {
  uint16_t low, high;
};

typedef uint32_t PairVec __attribute__((vector_size(4 * PRSR_LANES)));

// The vector of an operand type.
template <typename Operand>
using VecOf = std::conditional_t<std::is_same_v<Operand, Pair>, PairVec, Vec>;

// Operands that hold `count` inputs. The last pair may be half empty; its weights are zero.
constexpr int64_t operands_for(int64_t count, bool bf16) { return bf16 ? (count + 1) / 2 : count; }

inline PairVec load(const Pair* from) {
  PairVec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline PairVec load_first(const Pair* from, int64_t count) {
  return (PairVec)load_first(reinterpret_cast<const float*>(from), count);
}

inline PairVec broadcast(const Pair& from) {
  uint32_t bits;
  std::memcpy(&bits, &from, sizeof bits);
  return bits | PairVec{};
}

// Which hidden units, or pairs of them, are not zero: products with the others add nothing. NaN
// counts as nonzero. (An instruction that treats denormal numbers as zero may change a bias that is
// one.)
inline IntVec nonzero(Vec units) { return ~(units <= Vec{}); }
inline IntVec nonzero(PairVec units) { return (units & 0x7FFF7FFFu) != 0u; }

// Adds the product of the high halves, then that of the low halves, as vdpbf16ps does. The
// instruction also treats denormal numbers as zero, in its operands, its sum and its result.
inline Vec multiply_add(Vec sum, PairVec x, PairVec w) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#else
  sum += (Vec)(x & 0xFFFF0000u) * (Vec)(w & 0xFFFF0000u);
  return sum + (Vec)(x << 16) * (Vec)(w << 16);
#endif
}

// Lane of two successive vectors that becomes a half of a pair. Runs of `Run` lanes are paired: the
// first with the second, the third with the fourth.
template <int Run>
constexpr int lane_of(int pair, int half) {
  return pair / Run * 2 * Run + pair % Run + half * Run;
}

#if defined(__AVX512BF16__)
template <int Run, int... Half>
inline PairVec pair_halves(__m512i halves, std::integer_sequence<int, Half...>) {
  typedef int16_t Halves __attribute__((vector_size(sizeof(Vec))));
  const Halves order = {static_cast<int16_t>(lane_of<Run>(Half / 2, Half % 2))...};
  return (PairVec)_mm512_maskz_permutexvar_epi16(~0u, (__m512i)order, halves);
}
#else
template <int Run, int... Lane>
inline PairVec pair_halves(PairVec first, PairVec second, std::integer_sequence<int, Lane...>) {
  const PairVec low = shuffle<lane_of<Run>(Lane, 0)...>(first, second);
  const PairVec high = shuffle<lane_of<Run>(Lane, 1)...>(first, second);
  return low >> 16 | (high & 0xFFFF0000u);
}
#endif

// Rounds the lanes of two successive vectors to the nearest bfloat16, ties to even, and pairs them.
template <int Run>
inline PairVec round_to_pairs(Vec first, Vec second) {
#if defined(__AVX512BF16__)
  const auto halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  if constexpr (Run == 1) return (PairVec)halves;
  return pair_halves<Run>(halves, std::make_integer_sequence<int, 2 * kLanes>());
#else
  // Adds half of the last place that is kept, or less by one if that place is even. A carry into
  // the exponent is right, up to infinity, and the NaN that processors make stays NaN.
  const auto round = [](Vec v) { return (PairVec)v + 0x7FFFu + ((PairVec)v >> 16 & 1u); };
  return pair_halves<Run>(round(first), round(second), std::make_integer_sequence<int, kLanes>());
#endif
}

// Stores `size` features of `b` images, [size][b], as operands. `value(i, count)` returns float i
// and those that follow; only the first `count` exist, and the others must be zero.
template <typename Value>
inline void store_operands(const Value& value, int64_t size, int64_t b, float* out) {
  for (int64_t i = 0; i < size * b; i += kLanes) {
    store_first(out + i, value(i, size * b - i), size * b - i);
  }
}

template <int64_t Bundle, typename Value>
inline void store_pairs(const Value& value, int64_t size, Pair* out) {
  constexpr int64_t kRun = Bundle < kLanes ? Bundle : kLanes;
  const int64_t floats = size * Bundle, pairs = operands_for(size, true) * Bundle;
  for (int64_t i = 0; i < pairs; i += kLanes) {
    const int64_t first = i / Bundle * 2 * Bundle + i % Bundle;
    const int64_t second = first + (Bundle < kLanes ? kLanes : Bundle);
    const PairVec rounded = round_to_pairs<kRun>(
        value(first, floats - first), second < floats ? value(second, floats - second) : Vec{});
    store_first(reinterpret_cast<float*>(out + i), (Vec)rounded, pairs - i);
  }
}

template <typename Value>
inline void store_operands(const Value& value, int64_t size, int64_t b, Pair* out) {
  b == 1 ? store_pairs<1>(value, size, out) : store_pairs<prsr::kBundle>(value, size, out);
}

// Rounds `size` features of `b` images, [size][b], to pairs.
inline void round_features(const float* a, int64_t size, int64_t b, Pair* out) {
  store_operands([=](int64_t i, int64_t count) { return load_first(a + i, count); }, size, b, out);
}

}  // namespace
