// The draw of one sub-pixel of one image by one warp.
#pragma once

#include "mma.h"

namespace prsr {

constexpr int kMostLevels = 256;
constexpr int kLaneLevels = kMostLevels / 32;  // each lane has 8 adjacent levels

PRSR_DEVICE float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const float other = device::shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// Returns the smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature); collective.
//
// Temperature 0 (greedy) is the same with u = 0 and all mass on the largest logits. A level without
// mass is never drawn, neither by rounding nor because partial sums over lanes differ. The result
// is below `levels` for any logits.
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
  // Kept finite, because infinity times the zero of the largest logit would be NaN.
  const float sharpness = stochastic && 1.f / temperature < 3e38f ? 1.f / temperature : 3e38f;
  float cdf[kLaneLevels], total = 0;
  uint32_t massive = 0;  // bit mask of this lane's levels with mass
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
  float through = total;  // sum over the lanes up to and including this one
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
  if (backed == 0) return 0;  // the logits overflowed: any level is acceptable
  // If rounding leaves no level above the mark, the last level with mass.
  const int from = lanes ? device::lowest_bit(lanes) : device::highest_bit(backed);
  const uint32_t own = lanes ? reached : massive;
  const int bit = own == 0 ? 0 : lanes ? device::lowest_bit(own) : device::highest_bit(own);
  return kLaneLevels * from + static_cast<int>(device::shuffle(static_cast<float>(bit), from));
}

}  // namespace prsr
