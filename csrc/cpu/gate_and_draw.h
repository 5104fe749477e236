// The two steps of a row that are not GEMMs: the gates, and the draw of a level.
#pragma once

#include "bundle_gemm.h"

namespace {

// Stores tanh(a₁)·σ(a₂) of `size` features of b images as operands; a₂ follows a₁ in memory.
template <typename Operand>
inline void gate_features(const float* a, int64_t size, int64_t b, Operand* out) {
  const float* const second = a + size * b;
  store_operands(
      [=](int64_t i, int64_t count) {
        return gate(load_first(a + i, count), load_first(second + i, count));
      },
      size, b, out);
}

// Returns the smallest level whose cumulative mass exceeds u times the total mass, with mass
// exp((logits + conditioning) / temperature). Temperature 0 is greedy, and rounding never selects a
// level without mass (SPEC, section 2). Overwrites `logits`.
inline int64_t draw(float* logits, const float* conditioning, int64_t levels, float u,
                    float temperature) {
  const int64_t padded = (levels + kPanel - 1) / kPanel * kPanel;
  for (int64_t k = levels; k < padded; ++k) logits[k] = -__builtin_inff();
  Vec most = broadcast(-__builtin_inff());
  for (int64_t k = 0; k < padded; k += kLanes) {
    const Vec both = load(logits + k) + load_first(conditioning + k, levels - k);
    store(logits + k, both);
    most = max(most, both);
  }
  const float peak = largest(most);
  if (!(peak - peak == 0)) return 0;  // the logits overflowed: any level below K is acceptable
  if (!(temperature > 0)) {
    int64_t level = 0;
    while (logits[level] < peak) ++level;
    return level;
  }
  // Kept finite, because infinity times the zero of the largest logit would be NaN.
  const float sharpness = 1 / temperature < 3e38f ? 1 / temperature : 3e38f;
  // Sums over 16 levels first: in a running sum over all levels, each addition would wait for the
  // last.
  float* const sums = logits + padded;
  float total = 0;
  for (int64_t k = 0; k < padded; k += kPanel) {
    Vec part = Vec{};
    for (int64_t v = k; v < k + kPanel; v += kLanes) {
      const Vec mass = exp((load(logits + v) - peak) * sharpness);
      store(logits + v, mass);
      part += mass;
    }
    sums[k / kPanel] = sum(part);
    total += sums[k / kPanel];
  }
  const float target = u * total;
  float before = 0;
  int64_t last = 0;  // last level with mass among those passed
  for (int64_t k = 0; k < padded; k += kPanel) {
    const float mass = sums[k / kPanel];
    if (before + mass <= target) {
      before += mass;
      if (mass > 0) last = k;  // if rounding leaves no later level, the result is in this part
      continue;
    }
    float running = before;
    for (int64_t level = k; level < k + kPanel; ++level) {
      running += logits[level];
      if (logits[level] > 0) last = level;
      if (running > target && logits[level] > 0) return level;
    }
    return last;
  }
  for (int64_t level = last; level < padded && level < last + kPanel; ++level) {
    if (logits[level] > 0) last = level;
  }
  return last;
}

}  // namespace
