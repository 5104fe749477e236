// The draw of one sub-pixel of one image by one warp.
#pragma once

#include "mma.h"

namespace prsr {

constexpr int kMostLevels = 256;
constexpr int kLaneLevels = kMostLevels / 32;  // a lane has 8 that follow each other

PRSR_DEVICE float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const float other = device::shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// The smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature); collective.
//
// Greedy (temperature 0) is the same with u = 0 and mass on the largest logits alone. A level
// without mass is never drawn: neither for rounding, nor because sums over lanes of nothing but
// zeros may not be constant. The result is below `levels`, whatever the logits.
PRSR_DEVICE int draw(float (&logits)[kLaneLevels], int levels, float u, float temperature) {
  const int lane = device::lane();
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLaneLevels; ++i) {
    if (kLaneLevels * lane + i >= levels) logits[i] = -INFINITY;
    most = logits[i] > most ? logits[i] : most;
  }
  most = warp_max(most);
  const bool stochastic = temperature > 0;
  // Finite, for what is infinite times the largest logit's zero is nothing at all.
  const float sharpness = stochastic && 1.f / temperature < 3e38f ? 1.f / temperature : 3e38f;
  float cdf[kLaneLevels], total = 0;
  uint32_t massive = 0;  // which of this lane's levels have mass
#pragma unroll
  for (int i = 0; i < kLaneLevels; ++i) {
    const float below = logits[i] - most;
    const float mass = below == 0                ? 1.f
                       : stochastic && below < 0 ? device::power_of_two(below * sharpness * kLog2e)
                                                 : 0.f;
    massive |= mass > 0 ? 1u << i : 0u;
    total += mass;
    cdf[i] = total;
  }
  float through = total;  // sum over the lanes up to and with this one
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const float lower = device::shuffle_up(through, by);
    if (lane >= by) through += lower;
  }
  float before = device::shuffle_up(through, 1);
  if (lane == 0) before = 0;
  const float mark = (stochastic ? u : 0.f) * device::shuffle(through, 31);
  uint32_t reached = 0;
#pragma unroll
  for (int i = 0; i < kLaneLevels; ++i) reached |= before + cdf[i] > mark ? 1u << i : 0u;
  reached &= massive;
  const uint32_t lanes = device::ballot(reached != 0), backed = device::ballot(massive != 0);
  if (backed == 0) return 0;  // logits that overflowed: any level is as wrong
  // Where rounding leaves no level above the mark, the last one with mass.
  const int from = lanes ? device::lowest_bit(lanes) : device::highest_bit(backed);
  const uint32_t own = lanes ? reached : massive;
  const int bit = own == 0 ? 0 : lanes ? device::lowest_bit(own) : device::highest_bit(own);
  return kLaneLevels * from + static_cast<int>(device::shuffle(static_cast<float>(bit), from));
}

}  // namespace prsr
