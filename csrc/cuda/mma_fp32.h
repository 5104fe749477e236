// fp32 products on tensor cores. An operand is split into two numbers of a shorter format,
// x = high + low, and the product low·low is omitted. Tensor cores truncate their sums, so each
// step starts from zero, and its result is added in fp32.
#pragma once

#include "mma.h"

namespace prsr {

// Two tf32 numbers, with an error below 2^-22 relative to x at any scale. Operands are split where
// they are used.
struct Tf32 {
  static constexpr int kVectors = 2;
  static constexpr int kLookAheadSteps = 1;
  using Element = float;

  struct Inputs {
    float values[8];  // two tiles
  };
  struct Weights {
    uint4 tiles[2];
  };

  PRSR_DEVICE static Inputs pack(const float (&first)[4], const float (&second)[4]) {
    return {{first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]}};
  }
  PRSR_DEVICE static Inputs load(const uint4* at) {
    const float4 x = *reinterpret_cast<const float4*>(at);
    const float4 y = *reinterpret_cast<const float4*>(at + 32);
    return {{x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w}};
  }
  PRSR_DEVICE static uint4 vector(const Inputs& a, int i) {
    return {device::bits_of(a.values[4 * i]), device::bits_of(a.values[4 * i + 1]),
            device::bits_of(a.values[4 * i + 2]), device::bits_of(a.values[4 * i + 3])};
  }
  PRSR_DEVICE static void store_tile(uint4* at, int half, const float (&x)[4]) {
    reinterpret_cast<float4*>(at)[32 * half] = {x[0], x[1], x[2], x[3]};
  }
  PRSR_DEVICE static Inputs gather(const Element* one, const Element* other) {
    const float2* a = reinterpret_cast<const float2*>(one);
    const float2* b = reinterpret_cast<const float2*>(other);
    const float2 v = a[0], w = b[0], x = a[4], y = b[4];
    return {{v.x, v.y, w.x, w.y, x.x, x.y, y.x, y.y}};
  }
  PRSR_DEVICE static void scatter(Element* at, float lower, float upper) {
    *reinterpret_cast<float2*>(at) = {lower, upper};
  }
  PRSR_DEVICE static Weights weights(const uint4* at) { return {{at[0], at[32]}}; }
  PRSR_DEVICE static void add(float (&sum)[2][4], const Inputs& a, const Weights& w) {
    // Inputs 2t and 2t + 1 of a tile are inputs t and t + 4 of the instruction.
    uint32_t high[2][4], low[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int slot = i % 2 * 2 + i % 4 / 2;
      split(a.values[i], high[i / 4][slot], low[i / 4][slot]);
    }
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const uint4 v = w.tiles[tile];
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
      uint32_t b[4], rest[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) split(device::float_of(words[i]), b[i], rest[i]);
      float large[4] = {}, small[4] = {};
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        device::mma_tf32(small, high[k], rest[2 * k], rest[2 * k + 1]);
        device::mma_tf32(small, low[k], b[2 * k], b[2 * k + 1]);
        device::mma_tf32(large, high[k], b[2 * k], b[2 * k + 1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[tile][i] += large[i] + small[i];
    }
  }
  PRSR_DEVICE static float gate(float a, float b) { return exact_gate(a, b); }

 private:
  PRSR_DEVICE static void split(float x, uint32_t& high, uint32_t& low) {
    high = device::to_tf32(x) & 0xFFFFE000;  // the lower bits are undefined
    low = device::to_tf32(x - device::float_of(high));
  }
};

// Two fp16 numbers, x = high + low / 2048, with an error below 2^-22 relative to x, or 2^-36 if
// that is more. It takes half the tensor-core time of Tf32, and operands are split before they are
// stored. x must be in the range of fp16, which Python proves (prsr/engines/fp16_range.py).
struct SplitFp16 {
  static constexpr int kVectors = 2;  // high, low
  static constexpr int kLookAheadSteps = 1;
  static constexpr float kScale = 2048;  // without it, the low part of a small x would be denormal
  using Element = uint32_t;              // high in the lower half, low in the upper half

  struct Inputs {
    uint32_t high[4], low[4];
  };
  struct Weights {
    uint4 high, low;
  };

  PRSR_DEVICE static Inputs pack(const float (&first)[4], const float (&second)[4]) {
    Inputs a;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      split(first[2 * i], first[2 * i + 1], a.high[i], a.low[i]);
      split(second[2 * i], second[2 * i + 1], a.high[2 + i], a.low[2 + i]);
    }
    return a;
  }
  PRSR_DEVICE static Inputs load(const uint4* at) {
    const uint4 h = at[0], l = at[32];
    return {{h.x, h.y, h.z, h.w}, {l.x, l.y, l.z, l.w}};
  }
  PRSR_DEVICE static uint4 vector(const Inputs& a, int i) {
    return i == 0 ? uint4{a.high[0], a.high[1], a.high[2], a.high[3]}
                  : uint4{a.low[0], a.low[1], a.low[2], a.low[3]};
  }
  PRSR_DEVICE static void store_tile(uint4* at, int half, const float (&x)[4]) {
    uint2 high, low;
    split(x[0], x[1], high.x, low.x);
    split(x[2], x[3], high.y, low.y);
    reinterpret_cast<uint2*>(at)[half] = high;
    reinterpret_cast<uint2*>(at + 32)[half] = low;
  }
  PRSR_DEVICE static Inputs gather(const Element* one, const Element* other) {
    Inputs a;
    separate(one, a.high[0], a.low[0]);
    separate(other, a.high[1], a.low[1]);
    separate(one + 8, a.high[2], a.low[2]);
    separate(other + 8, a.high[3], a.low[3]);
    return a;
  }
  PRSR_DEVICE static void scatter(Element* at, float lower, float upper) {
    uint32_t high, low;
    split(lower, upper, high, low);
    *reinterpret_cast<uint2*>(at) = {(high & 0xFFFF) | low << 16, high >> 16 | (low & 0xFFFF0000)};
  }
  PRSR_DEVICE static Weights weights(const uint4* at) { return {at[0], at[32]}; }
  PRSR_DEVICE static void add(float (&sum)[2][4], const Inputs& a, const Weights& w) {
    add_tile(sum[0], a, w.high.x, w.high.y, w.low.x, w.low.y);
    add_tile(sum[1], a, w.high.z, w.high.w, w.low.z, w.low.w);
  }
  PRSR_DEVICE static float gate(float a, float b) { return exact_gate(a, b); }

 private:
  // Splits two numbers; each result holds the parts of both.
  PRSR_DEVICE static void split(float x, float y, uint32_t& high, uint32_t& low) {
    high = device::pack_fp16(x, y);
    low = device::pack_fp16(kScale * (x - device::lower_fp16(high)),
                            kScale * (y - device::upper_fp16(high)));
  }
  // Loads two adjacent elements.
  PRSR_DEVICE static void separate(const Element* at, uint32_t& high, uint32_t& low) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    high = (v.x & 0xFFFF) | v.y << 16;
    low = v.x >> 16 | (v.y & 0xFFFF0000);
  }
  PRSR_DEVICE static void add_tile(float (&sum)[4], const Inputs& a, uint32_t high0, uint32_t high1,
                                   uint32_t low0, uint32_t low1) {
    float large[4] = {}, small[4] = {};
    device::mma_fp16(small, a.high, low0, low1);
    device::mma_fp16(small, a.low, high0, high1);
    device::mma_fp16(large, a.high, high0, high1);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += large[i] + small[i] * (1 / kScale);
  }
};

}  // namespace prsr
