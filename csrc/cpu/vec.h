// A vector of floats as wide as the target instruction set, and the functions that sampling needs.
// It relies on the vector extensions of GCC and Clang: operators work lane by lane, and a product
// that feeds a sum is contracted to a fused multiply-add where there is one.
//
// This header and all that include it are compiled once per instruction set. Everything is
// therefore in an anonymous namespace, so that the linker never merges two versions.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define PRSR_LANES 16
#elif defined(__AVX2__)
#define PRSR_LANES 8
#else
#define PRSR_LANES 4
#endif

// For functions whose vectors stay in registers only if they are inlined. GCC inlines until a file
// has grown by some share, and the templates below have hundreds of instances.
#define PRSR_INLINE inline __attribute__((always_inline))

namespace {

constexpr int kLanes = PRSR_LANES;

typedef float Vec __attribute__((vector_size(4 * PRSR_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * PRSR_LANES)));

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);  // one unaligned load
  return v;
}

// Prefetches floats that are needed soon. The empty asm statement keeps GCC from removing the call,
// since a function that only prefetches has no other effect.
inline void prefetch(const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    __builtin_prefetch(from + i);
    asm volatile("");
  }
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

#if defined(__AVX2__) && !defined(__AVX512F__)
inline __m256i first_lanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
#endif

// Loads the first `count` lanes; the others are 0. Memory beyond them is not read: another thread
// may be writing it, or it may not be allocated.
inline Vec load_first(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#elif defined(__AVX2__)
  return (Vec)_mm256_maskload_ps(from, first_lanes(count));
#else
  Vec v = {};
  for (int64_t lane = 0; lane < count; ++lane) v[lane] = from[lane];
  return v;
#endif
}

// Stores the first `count` lanes only.
inline void store_first(float* to, Vec v, int64_t count) {
  if (count >= kLanes) return store(to, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(to, first_lanes(count), (__m256)v);
#else
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = v[lane];
#endif
}

// Whether any lane is true.
inline bool any(IntVec lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)lanes, (__m512i)lanes) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)lanes) != 0;
#else
  int32_t either = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) either |= lanes[lane];
  return either != 0;
#endif
}

// Stores the numbers of the lanes that are true, plus `first`, ascending. Returns how many they
// are. May write up to kLanes numbers, whatever it returns.
inline int64_t store_numbers(int32_t* to, IntVec lanes, int64_t first) {
#if defined(__AVX512F__)
  const __mmask16 mask = _mm512_movepi32_mask((__m512i)lanes);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i numbers = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(first)));
  // Compressed in a register, because AMD processors are slow at compressing to memory.
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(mask, numbers));
  return __builtin_popcount(mask);
#else
  int64_t count = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    to[count] = static_cast<int32_t>(first + lane);
    count += lanes[lane] != 0;
  }
  return count;
#endif
}

// Compilers know that x − 0 is x. They do not for x + 0, which differs for x = −0, and would emit
// an addition.
inline Vec broadcast(float x) { return x - Vec{}; }

inline Vec multiply_add(Vec sum, Vec x, Vec w) { return sum + x * w; }

// a > b ? a : b and a < b ? a : b, which give b if either is NaN. With constants, GCC makes two
// instructions of the generic form. The masks keep all lanes; without one, GCC 12 warns of
// undefined lanes in its own header.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_min_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

// Selects lanes of the concatenation of a and b in the order of `From`.
template <int... From, typename V>
inline V shuffle(V a, V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, From...);
#else
  typedef int32_t Order __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, Order{From...});
#endif
}

#if defined(__AVX512F__)
// Lanes `first` and those that follow of the concatenation of a and b.
inline Vec lanes_from(Vec a, Vec b, int64_t first) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i from = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(first)));
  return (Vec)_mm512_permutex2var_ps((__m512)a, from, (__m512)b);
}
#endif

template <int Half, int... Lane>
inline Vec swap_halves(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane ^ Half)...>(v, v);
}

// Adds halves to halves: the same order with every compiler.
template <int Half = kLanes / 2>
inline float sum(Vec v) {
  v += swap_halves<Half>(v, std::make_integer_sequence<int, kLanes>());
  if constexpr (Half > 1) {
    return sum<Half / 2>(v);
  } else {
    return v[0];
  }
}

template <int Half = kLanes / 2>
inline float largest(Vec v) {
  v = max(v, swap_halves<Half>(v, std::make_integer_sequence<int, kLanes>()));
  if constexpr (Half > 1) {
    return largest<Half / 2>(v);
  } else {
    return v[0];
  }
}

// The integer nearest to t, in the form that power_of_two expects.
#if defined(__AVX512F__)
inline Vec nearest(Vec t) { return (Vec)_mm512_maskz_roundscale_ps(0xFFFF, (__m512)t, 0); }
inline Vec integer(Vec nearest) { return nearest; }
#else
constexpr float kMagic = 12582912.0f;  // 1.5·2²³: adding it rounds to an integer
inline Vec nearest(Vec t) { return t + kMagic; }
inline Vec integer(Vec nearest) { return nearest - kMagic; }
#endif

// 2^(n + f) for f in [−½, ½] and |n + f| < 126: a polynomial with relative error below 3e-9, scaled
// by 2ⁿ.
inline Vec power_of_two(Vec nearest, Vec f) {
  Vec p = broadcast(1.5353361930e-4f);
  p = p * f + 1.3398874408e-3f;
  p = p * f + 9.6184373575e-3f;
  p = p * f + 5.5503324711e-2f;
  p = p * f + 2.4022647914e-1f;
  p = p * f + 6.9314720286e-1f;
  p = p * f + 1.0f;
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_scalef_ps(0xFFFF, (__m512)p, (__m512)nearest);
#else
  IntVec bits, n;
  std::memcpy(&bits, &p, sizeof bits);
  std::memcpy(&n, &nearest, sizeof n);
  bits += n << 23;  // into the exponent field; the bits of kMagic are shifted out
  std::memcpy(&p, &bits, sizeof p);
  return p;
#endif
}

constexpr float kLog2E = 1.44269504f;

// exp(x) with relative error below 2e-7 for x from −87 to 88. Smaller x give 0, as a level without
// mass must; larger x give exp(88).
inline Vec exp(Vec x) {
  const Vec least = broadcast(-87.0f);
  const IntVec vanishes = x < least;
  x = min(max(x, least), broadcast(88.0f));
  const Vec near = nearest(x * kLog2E), n = integer(near);
  // x − n·ln 2 without rounding, because ln 2 is split in two; then in units of ln 2.
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec p = power_of_two(near, r * kLog2E);
  return vanishes ? Vec{} : p;
}

// exp(c·x) with an error of 1e-7 in the result of a gate, where it is added to 1: the exponent is
// clamped where the gate is constant in float32, and rounding errors matter only far from 1.
inline Vec gate_power(Vec x, float c) {
  const Vec most = broadcast(60.0f);
  const Vec t = min(max(x * (c * kLog2E), -most), most);
  const Vec near = nearest(t);
  return power_of_two(near, t - integer(near));
}

// tanh(a)·σ(b) with one division.
inline Vec gate(Vec a, Vec b) {
  const Vec s = gate_power(a, -2.0f), t = gate_power(b, -1.0f);
  return (1.0f - s) / ((1.0f + s) * (1.0f + t));
}

}  // namespace
