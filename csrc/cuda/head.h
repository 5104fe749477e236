// Hidden units and logits: each block of a cluster computes its share of the levels for each tile.
#pragma once

#include "row_context.h"

namespace prsr {

// Computes 16 hidden units of a colour, packed as inputs.
template <typename P>
PRSR_DEVICE typename P::Inputs hidden(const RowContext<P>& r, const uint4* features, int colour,
                                      int step) {
  float sum[2][4];
  begin_at(sum, r.a.hidden_bias + 16 * (colour * r.a.unit_steps + step), r.lane_position.column);
  accumulate<P>(sum, features, r.hidden_weights(colour, step), (colour + 1) * r.a.group_steps);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[i][k] = device::positive(sum[i][k]);
  }
  return P::pack(sum[0], sum[1]);
}

// Computes the logits of this block's levels for one of the cluster's tiles from the features at
// `features`.
//
// Each warp sums every eighth step of a colour's units, and the sums of the warps are added in
// order, so the division of levels among blocks does not change any result. Units of earlier
// colours are read back by the lane that wrote them. `half` alternates between the two buffers of
// partial sums.
template <typename P>
PRSR_DEVICE void head(const RowContext<P>& r, const uint4* features, int of_tile, int colour,
                      int& half) {
  uint4* const kept_units = r.units(of_tile);
  for (int first = 0; first < r.pairs; first += kPairsAtOnce) {
    const int count = r.pairs - first < kPairsAtOnce ? r.pairs - first : kPairsAtOnce;
    const uint4* weights[kPairsAtOnce];
#pragma unroll
    for (int q = 0; q < kPairsAtOnce; ++q) {
      weights[q] = r.output_weights(colour, first + (q < count ? q : 0));
    }
    float sum[kPairsAtOnce][2][4] = {};
    for (int c = 0; c <= colour; ++c) {
      for (int s = r.warp; s < r.a.unit_steps; s += kWarps) {
        const int step = c * r.a.unit_steps + s;
        uint4* const at = kept_units + vectors<P>(step);
        typename P::Inputs inputs;
        if (c == colour && first == 0) {
          inputs = hidden(r, features, colour, s);
#pragma unroll
          for (int v = 0; v < P::kVectors; ++v) at[32 * v] = P::vector(inputs, v);
        } else {
          inputs = P::load(at);
        }
#pragma unroll
        for (int q = 0; q < kPairsAtOnce; ++q) {
          if (q < count) P::add(sum[q], inputs, P::weights(weights[q] + vectors<P>(step)));
        }
      }
    }
#pragma unroll
    for (int q = 0; q < kPairsAtOnce; ++q) {
      if (q >= count) continue;
      write(r.partial(half, r.warp, q) + r.lane, sum[q][0]);
      write(r.partial(half, r.warp, q) + 32 + r.lane, sum[q][1]);
    }
    // Orders the writes of the sums before they are added up and, because the two buffers
    // alternate, the reads of the other buffer before it is overwritten.
    device::block_barrier();
    if (r.thread < 64 * count) {
      const int q = r.thread / 64, element = r.thread % 64;
      float total[4], more[4];
      read(r.partial(half, 0, q) + element, total);
#pragma unroll
      for (int w = 1; w < kWarps; ++w) {
        read(r.partial(half, w, q) + element, more);
#pragma unroll
        for (int k = 0; k < 4; ++k) total[k] += more[k];
      }
      float4* const to = r.logits(2 * (r.first_pair + first + q) + element / 32) + r.lane;
      if (r.sends) {
        device::send(reinterpret_cast<uint4*>(to),
                     {device::bits_of(total[0]), device::bits_of(total[1]),
                      device::bits_of(total[2]), device::bits_of(total[3])},
                     r.logits_arrived(), of_tile);
      } else {
        write(to, total);
      }
    }
    half ^= 1;
  }
}

}  // namespace prsr
