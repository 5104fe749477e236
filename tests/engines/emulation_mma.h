// Tensor-core products and other exchanges between the lanes of a warp, for the emulation. Sums are
// truncated, as tensor cores do.
#pragma once

#include <array>
#include <cmath>

#include "emulation_machine.h"

namespace prsr::emulation {

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
// All two-byte numbers as floats.
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

// A product of a warp: every lane supplies its operands, and the last one computes for all.
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

// The value of lane `from`.
inline float exchange(float value, int from) {
  Warp& warp = self().block->warps[self().thread / 32];
  std::memcpy(warp.in[self().thread % 32], &value, 4);
  meet(warp.meeting, 32);
  std::memcpy(&value, warp.in[from], 4);
  meet(warp.meeting, 32);
  return value;
}

}  // namespace prsr::emulation
