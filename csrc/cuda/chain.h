// A colour's own features from the first layer to the head: the part that waits for itself.
#pragma once

#include "given.h"

namespace prsr {

// A step of features to every block that has levels.
template <typename P>
PRSR_DEVICE void send_step(const Row<P>& r, const typename P::Inputs& inputs, int step) {
#pragma unroll
  for (int v = 0; v < P::kVectors; ++v) {
    const uint4 words = P::vector(inputs, v);
#pragma unroll 1
    for (int to = 0; to < r.owners; ++to) {
      device::send(r.received(r.rank) + vectors<P>(step) + 32 * v, words,
                   r.features_arrived(r.rank), to);
    }
  }
}

// What a layer of the chain reads, in registers.
template <typename P, int S>
struct Layer {
  float gates[2 * S][2][4], mix[S][2][4];
  typename P::Weights gate_weights[2 * S][S], mix_weights[S][S];

  PRSR_DEVICE void load(const Row<P>& r, int n, int number, int colour) {
    const float4* const sums = r.given(n, number);
    const uint4* const all = r.a.chain_offset >= 0
                                 ? reinterpret_cast<const uint4*>(r.memory + r.a.chain_offset)
                                 : r.a.chain;
    const uint4* const weights =
        all + vectors<P>(static_cast<int64_t>(number * r.a.channels + colour) * 3 * S * S) + r.lane;
#pragma unroll
    for (int i = 0; i < 2 * S; ++i) {
      read(sums + i * 64, gates[i][0]);
      read(sums + i * 64 + 32, gates[i][1]);
#pragma unroll
      for (int s = 0; s < S; ++s) gate_weights[i][s] = P::weights(weights + vectors<P>(i * S + s));
    }
#pragma unroll
    for (int i = 0; i < S; ++i) {
      read(sums + (2 * S + i) * 64, mix[i][0]);
      read(sums + (2 * S + i) * 64 + 32, mix[i][1]);
#pragma unroll
      for (int s = 0; s < S; ++s) {
        mix_weights[i][s] = P::weights(weights + vectors<P>((2 * S + i) * S + s));
      }
    }
  }
};

// Features as inputs of a product, and into memory.
template <typename P, int S>
PRSR_DEVICE void put(typename P::Inputs (&inputs)[S], const float (&x)[2 * S][4], uint4* to) {
#pragma unroll
  for (int s = 0; s < S; ++s) {
    inputs[s] = P::pack(x[2 * s], x[2 * s + 1]);
#pragma unroll
    for (int v = 0; v < P::kVectors; ++v) to[vectors<P>(s) + 32 * v] = P::vector(inputs[s], v);
  }
}

// One warp takes S steps of features through all layers in its registers. A layer is two products
// that wait for each other.
template <typename P, int S>
PRSR_DEVICE void chain(const Row<P>& r, int n) {
  const int x = n / r.a.channels, colour = n % r.a.channels;
  // Where registers hold two layers, the next one is asked for while this one is computed.
  constexpr bool kAhead = S * P::kVectors <= 2;
  Layer<P, S> next;
  if (kAhead) next.load(r, n, 0, colour);
  float own[2 * S][4];
  const float one = r.drawn()[r.place.row], other = r.drawn()[r.place.row + 8];
#pragma unroll
  for (int i = 0; i < 2 * S; ++i) {
    read(r.residual(n, i), own[i]);
    const float2 w = *reinterpret_cast<const float2*>(r.last_weights(n) + 8 * i + r.place.column);
    own[i][0] += one * w.x;
    own[i][1] += one * w.y;
    own[i][2] += other * w.x;
    own[i][3] += other * w.y;
  }
  const int64_t column = vectors<P>(r.a.reach * r.colour_steps() + colour * S);
  typename P::Inputs inputs[S];
  for (int l = 0; l < r.a.layers; ++l) {
    if (!kAhead) next.load(r, n, l, colour);
    Layer<P, S> layer = next;
    if (kAhead && l + 1 < r.a.layers) next.load(r, n, l + 1, colour);
    put<P, S>(inputs, own, r.kept(l, x) + column);
    float gates[2 * S][4];
#pragma unroll
    for (int i = 0; i < 2 * S; ++i) {
#pragma unroll
      for (int s = 0; s < S; ++s) P::add(layer.gates[i], inputs[s], layer.gate_weights[i][s]);
      gate_tile<P>(layer.gates[i], gates[i]);
    }
    put<P, S>(inputs, gates, r.gated(l) + vectors<P>(colour * S));
#pragma unroll
    for (int i = 0; i < S; ++i) {
#pragma unroll
      for (int s = 0; s < S; ++s) P::add(layer.mix[i], inputs[s], layer.mix_weights[i][s]);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        own[2 * i][k] += layer.mix[i][0][k];
        own[2 * i + 1][k] += layer.mix[i][1][k];
      }
    }
  }
  put<P, S>(inputs, own, r.kept(r.a.layers, x) + column);
  if (!r.sends) return;
#pragma unroll
  for (int s = 0; s < S; ++s) send_step(r, inputs[s], colour * S + s);
}

// The same for any number of features, by all warps: 8 features each in turn, through memory. A
// warp adds to the features that it wrote itself.
template <typename P>
PRSR_DEVICE void wide_chain(const Row<P>& r, int n) {
  const InputsOf<P> in(r, n);
  const int S = r.a.group_steps;
  const int64_t column = vectors<P>(r.a.reach * r.colour_steps() + in.mix_steps);
  for (int i = r.warp; i < S; i += kWarps) {
    for (int j = 0; j < 2; ++j) {
      float features[4];
      first_sums(r, features, in.x, in.colour, 2 * i + j, in.values);
      write(r.residual(n, 2 * i + j), features);
      P::store_tile(r.kept(0, in.x) + column + vectors<P>(i), j, features);
    }
  }
  // Orders the writes of the first layer's features before their reads by other warps.
  device::block_barrier();
  for (int l = 0; l < r.a.layers; ++l) {
    for (int i = r.warp; i < 2 * S; i += kWarps) {
      float sum[2][4], gates[4];
      gate_sums(r, sum, in.x, in.colour, l, i, in.gate_steps + S);
      gate_tile<P>(sum, gates);
      P::store_tile(r.gated(l) + vectors<P>(in.mix_steps + i / 2), i % 2, gates);
    }
    // Orders the writes of the gates before their reads by other warps.
    device::block_barrier();
    for (int i = r.warp; i < S; i += kWarps) {
      float sum[2][4];
      mix_sums(r, sum, in.colour, l, i, in.mix_steps + S);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float features[4];
        read(r.residual(n, 2 * i + j), features);
#pragma unroll
        for (int k = 0; k < 4; ++k) features[k] += sum[j][k];
        write(r.residual(n, 2 * i + j), features);
        P::store_tile(r.kept(l + 1, in.x) + column + vectors<P>(i), j, features);
      }
    }
    // Orders the writes of the next layer's features before their reads by other warps.
    device::block_barrier();
  }
  if (!r.sends) return;
  const uint4* const last = r.kept(r.a.layers, in.x) + column;
  for (int s = r.warp; s < S; s += kWarps) {
    send_step(r, P::load(last + vectors<P>(s)), in.mix_steps + s);
  }
}

}  // namespace prsr
