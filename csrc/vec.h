// A vector of floats as wide as the instruction set that this file is compiled for, and the
// functions that sampling needs of it. GCC's and Clang's vector extensions do the rest: operators
// work lane by lane, and a product that feeds a sum becomes one fused instruction where there is
// one.
//
// This and everything that includes it is compiled once per instruction set, so nothing here may
// have a name that the linker sees: all is in an anonymous namespace.
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

namespace {

constexpr int kLanes = PRSR_LANES;

typedef float Vec __attribute__((vector_size(4 * PRSR_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * PRSR_LANES)));

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);  // one unaligned load
  return v;
}

// Asks for numbers that are wanted soon. To GCC, a function that does nothing else does nothing,
// and calls of it may go; hence the statement that is nothing and must stay.
inline void prefetch(const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    __builtin_prefetch(from + i);
    asm volatile("");
  }
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// Weights kept as bfloat16: the upper halves of floats.
inline Vec load(const uint16_t* from) {
#if defined(__AVX512F__)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  // Masked, for GCC 12 takes the plain one for a use of something uninitialized.
  return (Vec)((IntVec)_mm512_maskz_cvtepu16_epi32(0xFFFF, halves) << 16);
#elif defined(__AVX2__)
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Vec)((IntVec)_mm256_cvtepu16_epi32(halves) << 16);
#else
  IntVec bits;
  for (int lane = 0; lane < kLanes; ++lane) bits[lane] = static_cast<int32_t>(from[lane]) << 16;
  return (Vec)bits;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
inline __m256i first_lanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}
#endif

// The first `count` lanes only, and 0 in the others: what lies behind them may belong to a thread
// that is just writing there, or to nobody.
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

// The first `count` lanes only, as above.
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

// x − 0 is x, and compilers know it; x + 0 is not, for x = −0, and costs an addition.
inline Vec broadcast(float x) { return x - Vec{}; }

// a > b ? a : b, and a < b ? a : b, which is b where either is NaN. With constants, GCC makes two
// instructions of that. Masks keep all lanes: without one, GCC 12 warns of undefined lanes in a
// header of its own.
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

// Lanes of a, and of b as if they followed, in the order of `From`.
template <int... From, typename V>
inline V shuffle(V a, V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, From...);
#else
  typedef int32_t Order __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, Order{From...});
#endif
}

template <int Half, int... Lane>
inline Vec swap_halves(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane ^ Half)...>(v, v);
}

// Halves are added to halves: the same order whatever the compiler.
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

// The integer nearest to t, in a form that suits power_of_two.
#if defined(__AVX512F__)
inline Vec nearest(Vec t) { return (Vec)_mm512_maskz_roundscale_ps(0xFFFF, (__m512)t, 0); }
inline Vec integer(Vec nearest) { return nearest; }
#else
constexpr float kMagic = 12582912.0f;  // 1.5·2²³: adding it rounds to an integer
inline Vec nearest(Vec t) { return t + kMagic; }
inline Vec integer(Vec nearest) { return nearest - kMagic; }
#endif

// 2 to the n + f, for f in [−½, ½] and a sum below 126 in size: a polynomial whose relative error
// is below 3e-9, times 2ⁿ.
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
  bits += n << 23;  // into the exponent; the magic's own bits are shifted out
  std::memcpy(&p, &bits, sizeof p);
  return p;
#endif
}

constexpr float kLog2E = 1.44269504f;

// e to the x, relative error below 2e-7, for x from −87 to 88; below that 0, which is what
// a level without mass must get. Above 88 it is that of 88.
inline Vec exp(Vec x) {
  const Vec least = broadcast(-87.0f);
  const IntVec vanishes = x < least;
  x = min(max(x, least), broadcast(88.0f));
  const Vec near = nearest(x * kLog2E), n = integer(near);
  // x − n·ln 2 without rounding, for ln 2 is split in two; then in units of ln 2.
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec p = power_of_two(near, r * kLog2E);
  return vanishes ? Vec{} : p;
}

// e to the c·x to within 1e-7 of what matters to a gate, where it is added to 1: the exponent is
// clamped where float32 is flat, and its rounding counts only where the power is far from 1.
inline Vec gate_power(Vec x, float c) {
  const Vec most = broadcast(60.0f);
  const Vec t = min(max(x * (c * kLog2E), -most), most);
  const Vec near = nearest(t);
  return power_of_two(near, t - integer(near));
}

// tanh(a)·σ(b) by one division.
inline Vec gate(Vec a, Vec b) {
  const Vec s = gate_power(a, -2.0f), t = gate_power(b, -1.0f);
  return (1.0f - s) / ((1.0f + s) * (1.0f + t));
}

}  // namespace
