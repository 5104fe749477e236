// Matrix products on tensor cores in each precision; all layers consist of them.
//
// A product consists of steps. A step adds, for 16 images (or columns of images), the contributions
// of 16 inputs to 16 outputs. Its weights are two tiles of 8 outputs, so that one load serves both;
// the layer determines which outputs these are. Sums are fp32, in the accumulator layout of
// intrinsics.h: in each tile, lane l holds outputs 2(l%4) and 2(l%4) + 1 of images l/4 and l/4 + 8.
//
// A lane's inputs are those at the same positions of two tiles of 8 features. The packed result of
// one product is therefore an input of the next without exchange between lanes.
//
// In memory, inputs and weights of a step are kVectors × 32 uint4: every lane reads its own 16
// bytes.
#pragma once

#include "intrinsics.h"

namespace prsr {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kImages = 16;  // images per tile: rows of a product

constexpr float kLog2e = 1.44269504f;

// The position of a lane in a tile of accumulators.
struct LanePosition {
  int row, column;
  PRSR_DEVICE static LanePosition of(int lane) { return {lane / 4, lane % 4 * 2}; }
};

// tanh(a)·σ(b) within a few units in the last place. Exponents are clamped where the result no
// longer depends on them, so that the product below stays finite.
PRSR_DEVICE float exact_gate(float a, float b) {
  const float x = -2 * kLog2e * a, y = -kLog2e * b;
  const float s = device::power_of_two(device::at_most(x, 60.f));
  const float t = device::power_of_two(device::at_most(y, 60.f));
  return (1.f - s) * device::reciprocal((1.f + s) * (1.f + t));
}

// The same with an error of 2^-11 in each factor, and half the instructions on the special-function
// unit.
PRSR_DEVICE float quick_gate(float a, float b) {
  const float half = 0.5f * device::tanh_approximate(a);
  return half * device::tanh_approximate(0.5f * b) + half;
}

// Operands of two bytes. `Format` defines rounding and multiplication.
template <typename Format>
struct Half {
  static constexpr int kVectors = 1;
  static constexpr int kLookAheadSteps = 2;  // the most whose registers do not spill
  using Element = uint16_t;

  struct Inputs {
    uint32_t words[4];
  };
  struct Weights {
    uint4 words;
  };

  PRSR_DEVICE static Inputs pack(const float (&first)[4], const float (&second)[4]) {
    return {{Format::pack(first[0], first[1]), Format::pack(first[2], first[3]),
             Format::pack(second[0], second[1]), Format::pack(second[2], second[3])}};
  }
  PRSR_DEVICE static Inputs load(const uint4* at) {
    const uint4 v = *at;
    return {{v.x, v.y, v.z, v.w}};
  }
  PRSR_DEVICE static uint4 vector(const Inputs& a, int) {
    return {a.words[0], a.words[1], a.words[2], a.words[3]};
  }
  // Stores one tile of a step: its first or second half.
  PRSR_DEVICE static void store_tile(uint4* at, int half, const float (&x)[4]) {
    reinterpret_cast<uint2*>(at)[half] = {Format::pack(x[0], x[1]), Format::pack(x[2], x[3])};
  }
  // Loads inputs from two rows of features, at this lane's column.
  PRSR_DEVICE static Inputs gather(const Element* one, const Element* other) {
    const uint32_t* a = reinterpret_cast<const uint32_t*>(one);
    const uint32_t* b = reinterpret_cast<const uint32_t*>(other);
    return {{a[0], b[0], a[4], b[4]}};
  }
  PRSR_DEVICE static void scatter(Element* at, float lower, float upper) {
    *reinterpret_cast<uint32_t*>(at) = Format::pack(lower, upper);
  }
  PRSR_DEVICE static Weights weights(const uint4* at) { return {*at}; }
  PRSR_DEVICE static void add(float (&sum)[2][4], const Inputs& a, const Weights& w) {
    Format::mma(sum[0], a.words, w.words.x, w.words.y);
    Format::mma(sum[1], a.words, w.words.z, w.words.w);
  }
  PRSR_DEVICE static float gate(float a, float b) { return quick_gate(a, b); }
};

struct Bf16Format {
  PRSR_DEVICE static uint32_t pack(float a, float b) { return device::pack_bf16(a, b); }
  PRSR_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    device::mma_bf16(d, a, b0, b1);
  }
};
struct Fp16Format {
  PRSR_DEVICE static uint32_t pack(float a, float b) { return device::pack_fp16(a, b); }
  PRSR_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    device::mma_fp16(d, a, b0, b1);
  }
};
using Bf16 = Half<Bf16Format>;
using Fp16 = Half<Fp16Format>;

// Gates of accumulated sums: the first tile holds a, the second b.
template <typename P>
PRSR_DEVICE void gate_tile(const float (&sum)[2][4], float (&out)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = P::gate(sum[0][i], sum[1][i]);
}

// The number of uint4 in `steps` steps of inputs or weights.
template <typename P>
PRSR_DEVICE constexpr int64_t vectors(int64_t steps) {
  return steps * P::kVectors * 32;
}

}  // namespace prsr
