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

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

inline Vec min(Vec a, Vec b) { return a < b ? a : b; }

inline float sum(Vec v) {
  // Halves are added to halves: the same order whatever the compiler.
  float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

inline float largest(Vec v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// e to the x, relative error below 2e-7, for x from −87 to 88; below that 0, which is what
// a level without mass must get. Above 88 it is that of 88.
//
// x = n·ln 2 + r, |r| ≤ ½ ln 2: 2ⁿ comes from the exponent's bits, e to the r from a polynomial.
// ln 2 is split in two, so that n·ln 2 is subtracted without rounding.
inline Vec exp(Vec x) {
  const Vec least = broadcast(-87.0f);
  const IntVec vanishes = x < least;
  x = min(max(x, least), broadcast(88.0f));
  const Vec magic = broadcast(12582912.0f);  // 1.5·2²³: adding it rounds to an integer
  const Vec shifted = x * 1.44269504f + magic;
  const Vec n = shifted - magic;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = broadcast(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  IntVec bits;
  std::memcpy(&bits, &p, sizeof bits);
  IntVec exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 23;  // the magic's own bits are shifted out
  std::memcpy(&p, &bits, sizeof p);
  return vanishes ? Vec{} : p;
}

// tanh(a)·σ(b) by one division. The exponents are clamped where both functions are flat in float32
// but a product of two exponentials could overflow.
inline Vec gate(Vec a, Vec b) {
  const Vec most = broadcast(42.0f);
  const Vec s = exp(min(max(-2.0f * a, -most), most));
  const Vec t = exp(min(max(-b, -most), most));
  return (1.0f - s) / ((1.0f + s) * (1.0f + t));
}

}  // namespace
