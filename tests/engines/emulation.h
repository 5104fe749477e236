// The functions of csrc/cuda/intrinsics.h on a CPU: each thread of a block is a fiber, the blocks
// of a cluster run concurrently, and warp instructions are collective. The approximate tanh has the
// error that the instruction may have.
#pragma once

#include "emulation_mma.h"

#define PRSR_DEVICE inline
#define PRSR_BOTH inline

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
// Rounds half a unit away from zero; the bits below the mantissa of tf32 are undefined.
inline uint32_t to_tf32(float x) { return bits_of(x) + 0x1000; }

inline float positive(float x) { return x < 0 ? 0 : x; }
inline float at_most(float x, float most) { return x > most ? most : x; }

inline float power_of_two(float x) { return std::exp2(x); }
inline float reciprocal(float x) { return 1 / x; }
inline float tanh_approximate(float x) {
  const float y = std::tanh(x);
  // Rounded to 11 bits, which is half the permitted error.
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
