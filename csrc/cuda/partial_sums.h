// Partial sums of a sub-pixel, computed before its own features are known: contributions of the
// vertical stack, of the pixels to the left and of the earlier colours of the pixel.
//
// In drawing order, the last inputs of sub-pixel n are the features of sub-pixel n − 1, whatever
// its colour. All other inputs can be summed while n − 1 goes through its chain: early() does that,
// and late() adds the rest.
#pragma once

#include "row_context.h"

namespace prsr {

// Sums both halves of 8 features of a layer: the vertical stack's contribution, then `steps` steps
// of inputs, starting p pixels to the left.
template <typename P>
PRSR_DEVICE void gate_sums(const RowContext<P>& r, float (&sum)[2][4], int x, int colour, int layer,
                           int feature_tile, int steps) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t pixel = r.image(r.lane_position.row + 8 * h) * r.a.width + x;
    const float* above = r.a.above +
                         ((pixel * r.a.layers + layer) * r.a.channels + colour) * 2 * r.group() +
                         8 * feature_tile + r.lane_position.column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 v = *reinterpret_cast<const float2*>(above + half * r.group());
      sum[half][2 * h] = v.x;
      sum[half][2 * h + 1] = v.y;
    }
  }
  accumulate<P>(sum, r.kept(layer, x), r.gate_weights(colour, layer, feature_tile), steps);
}

// Sums the mix of 16 features of a layer: its bias, then `steps` steps of the pixel's gates.
template <typename P>
PRSR_DEVICE void mix_sums(const RowContext<P>& r, float (&sum)[2][4], int colour, int layer,
                          int pair, int steps) {
  const int64_t number = static_cast<int64_t>(layer) * r.a.channels + colour;
  begin_at(sum, r.a.mix_bias + number * r.group() + 16 * pair, r.lane_position.column);
  accumulate<P>(sum, r.gated(layer), r.mix_weights(colour, layer, pair), steps);
}

// Sums 8 of a colour's features in the first layer over its first inputs, in fp32 multiply-adds.
template <typename P>
PRSR_DEVICE void first_sums(const RowContext<P>& r, float (&sum)[4], int x, int colour,
                            int feature_tile, int inputs) {
  const int output = 8 * feature_tile + r.lane_position.column;
  const float* weight =
      r.a.first + output +
      static_cast<int64_t>(colour) * (r.a.first_reach + 1) * r.a.channels * r.group();
  const float* one = r.value(r.lane_position.row, x);
  const float* other = r.value(r.lane_position.row + 8, x);
  const float2 b = *reinterpret_cast<const float2*>(r.a.first_bias + colour * r.group() + output);
  sum[0] = sum[2] = b.x;
  sum[1] = sum[3] = b.y;
#pragma unroll 4
  for (int i = 0; i < inputs; ++i) {
    const float2 w = *reinterpret_cast<const float2*>(weight + i * r.group());
    const float v = one[i], u = other[i];
    sum[0] += v * w.x;
    sum[1] += v * w.y;
    sum[2] += u * w.x;
    sum[3] += u * w.y;
  }
}

// The number of steps, or values, that sub-pixel n reads; the last ones are those of n − 1.
template <typename P>
struct InputsOf {
  int x, colour, gate_steps, mix_steps, values;

  PRSR_DEVICE InputsOf(const RowContext<P>& r, int n)
      : x(n / r.a.channels),
        colour(n % r.a.channels),
        gate_steps((r.a.reach * r.a.channels + colour) * r.a.group_steps),
        mix_steps(colour * r.a.group_steps),
        values(r.a.first_reach * r.a.channels + colour) {}
};

// Sums sub-pixel n except for the contribution of n − 1. Called by `warps` warps; `warp` is this
// one's index.
template <typename P>
PRSR_DEVICE void early(const RowContext<P>& r, int n, int warp, int warps) {
  const InputsOf<P> in(r, n);
  const int S = r.a.group_steps, tiles = 2 * S;
  const int gates = r.a.layers * tiles, mixes = r.a.layers * S;
  for (int i = warp; i < gates + mixes + tiles; i += warps) {
    if (i >= gates + mixes) {
      const int tile = i - gates - mixes;
      float sum[4];
      first_sums(r, sum, in.x, in.colour, tile, in.values - 1);
      write(r.residual(n, tile), sum);
      if (r.lane < 8) {
        const int64_t input =
            static_cast<int64_t>(in.colour) * (r.a.first_reach + 1) * r.a.channels + in.values - 1;
        r.last_weights(n)[8 * tile + r.lane] = r.a.first[input * r.group() + 8 * tile + r.lane];
      }
      continue;
    }
    float sum[2][4];
    float4* to;
    if (i < gates) {
      const int layer = i / tiles, tile = i % tiles;
      gate_sums(r, sum, in.x, in.colour, layer, tile, in.gate_steps - S);
      to = r.given(n, layer) + tile * 64;
    } else {
      const int layer = (i - gates) / S, pair = (i - gates) % S;
      mix_sums(r, sum, in.colour, layer, pair, in.mix_steps - S);
      to = r.given(n, layer) + (tiles + pair) * 64;
    }
    write(to, sum[0]);
    write(to + 32, sum[1]);
  }
}

// Adds to the sums of sub-pixel n the contribution of n − 1, except for its value.
template <typename P>
PRSR_DEVICE void late(const RowContext<P>& r, int n) {
  const InputsOf<P> in(r, n);
  const int S = r.a.group_steps, tiles = 2 * S;
  const int gates = in.gate_steps > 0 ? r.a.layers * tiles : 0;
  const int mixes = in.mix_steps > 0 ? r.a.layers * S : 0;
  const int64_t gate_offset = vectors<P>(in.gate_steps - S);
  const int64_t mix_offset = vectors<P>(in.mix_steps - S);
#pragma unroll(2 / P::kVectors)
  for (int i = r.warp; i < gates + mixes; i += kWarps) {
    const bool gate = i < gates;
    const int layer = gate ? i / tiles : (i - gates) / S;
    const int tile = gate ? i % tiles : (i - gates) % S;
    float4* const to = r.given(n, layer) + (gate ? tile : tiles + tile) * 64;
    float sum[2][4];
    read(to, sum[0]);
    read(to + 32, sum[1]);
    if (gate) {
      accumulate<P>(sum, r.kept(layer, in.x) + gate_offset,
                    r.gate_weights(in.colour, layer, tile) + gate_offset, S);
    } else {
      accumulate<P>(sum, r.gated(layer) + mix_offset,
                    r.mix_weights(in.colour, layer, tile) + mix_offset, S);
    }
    write(to, sum[0]);
    write(to + 32, sum[1]);
  }
}

// Loads what the draw of sub-pixel n needs: the initial logits, noise and known levels. Called by
// `threads` threads.
template <typename P>
PRSR_DEVICE void prepare_draw(const RowContext<P>& r, int n, int thread, int threads) {
  const int x = n / r.a.channels, colour = n % r.a.channels;
  const int padded = 16 * r.a.level_pairs, live = r.live_images();
  for (int i = thread; i < live * padded; i += threads) {
    const int row = i / padded, level = i % padded;
    if (level >= r.a.levels) continue;
    const int64_t sub_pixel = r.pixel(row, x) * r.a.channels + colour;
    r.start()[i] =
        r.a.output_bias[colour * padded + level] + r.a.conditioning[sub_pixel * r.a.levels + level];
  }
  if (thread < live) {
    r.noise()[thread] = r.a.noise[r.pixel(thread, x) * r.a.channels + colour];
    const int64_t at = r.image_index(thread, x, colour);
    r.known()[thread] = r.a.known != nullptr && r.a.known[at] ? r.a.image[at] : -1;
  }
}

}  // namespace prsr
