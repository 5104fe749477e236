// The chain: a colour's own features from the first layer to the head. This is the sequential part
// of a sub-pixel.
#pragma once

#include "partial_sums.h"

namespace prsr {

// Sends a step of features to every block that computes levels.
template <typename P>
PRSR_DEVICE void send_step(const RowContext<P>& r, const typename P::Inputs& inputs, int step) {
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

// This lane's part of the sums that one layer of the chain reads.
template <int S>
struct Sums {
  float gates[2 * S][2][4], mix[S][2][4];

  PRSR_DEVICE void load(const float4* from) {
    load_gates(from);
    load_mix(from);
  }
  PRSR_DEVICE void load_gates(const float4* from) {
#pragma unroll
    for (int i = 0; i < 2 * S; ++i) {
      read(from + i * 64, gates[i][0]);
      read(from + i * 64 + 32, gates[i][1]);
    }
  }
  PRSR_DEVICE void load_mix(const float4* from) {
#pragma unroll
    for (int i = 0; i < S; ++i) {
      read(from + (2 * S + i) * 64, mix[i][0]);
      read(from + (2 * S + i) * 64 + 32, mix[i][1]);
    }
  }
};

// Pairs × S steps of weights.
template <typename P, int S, int Pairs>
PRSR_DEVICE const uint4* load_weights(typename P::Weights (&weights)[Pairs][S], const uint4* from) {
#pragma unroll
  for (int i = 0; i < Pairs; ++i) {
#pragma unroll
    for (int s = 0; s < S; ++s) weights[i][s] = P::weights(from + vectors<P>(i * S + s));
  }
  return from + vectors<P>(Pairs * S);
}

template <typename P, int S>
struct ChainWeights {
  typename P::Weights gates[2 * S][S], mix[S][S];

  PRSR_DEVICE void load(const uint4* from) {
    load_weights<P, S>(mix, load_weights<P, S>(gates, from));
  }
};

// Packs features as inputs of the next product and stores them.
template <typename P, int S>
PRSR_DEVICE void put(typename P::Inputs (&inputs)[S], const float (&x)[2 * S][4], uint4* to) {
#pragma unroll
  for (int s = 0; s < S; ++s) {
    inputs[s] = P::pack(x[2 * s], x[2 * s + 1]);
#pragma unroll
    for (int v = 0; v < P::kVectors; ++v) to[vectors<P>(s) + 32 * v] = P::vector(inputs[s], v);
  }
}

// A colour's features in the first layer: the sums of early() and the last value drawn.
template <typename P, int S>
PRSR_DEVICE void first_features(const RowContext<P>& r, int n, float (&own)[2 * S][4]) {
  const float one = r.drawn()[r.lane_position.row], other = r.drawn()[r.lane_position.row + 8];
#pragma unroll
  for (int i = 0; i < 2 * S; ++i) {
    read(r.residual(n, i), own[i]);
    const float2 w =
        *reinterpret_cast<const float2*>(r.last_weights(n) + 8 * i + r.lane_position.column);
    own[i][0] += one * w.x;
    own[i][1] += one * w.y;
    own[i][2] += other * w.x;
    own[i][3] += other * w.y;
  }
}

// Where one sub-pixel's chain reads and writes, layer by layer.
template <typename P, int S>
struct ChainPlaces {
  const float4* sums;
  const uint4* weights;
  uint4 *features, *gated;
  const int64_t layer_sums = 6 * S * 32;
  const int64_t layer_weights, layer_features, layer_gated;

  PRSR_DEVICE ChainPlaces(const RowContext<P>& r, int n)
      : ChainPlaces(r, n, n / r.a.channels, n % r.a.channels) {}
  PRSR_DEVICE ChainPlaces(const RowContext<P>& r, int n, int x, int colour)
      : sums(r.given(n, 0)),
        weights(r.chain_weights(colour, 0)),
        features(r.kept(0, x) + vectors<P>(r.a.reach * r.colour_steps() + colour * S)),
        gated(r.gated(0) + vectors<P>(colour * S)),
        layer_weights(r.chain_weights(colour, 1) - weights),
        layer_features(r.kept(1, 0) - r.kept(0, 0)),
        layer_gated(vectors<P>(r.colour_steps())) {}
};

// The gates of the first `2 * Halves` rows of each lane; zero in the others.
template <typename P, int S, int Halves>
PRSR_DEVICE void gates_of(const float (&sum)[2 * S][2][4], float (&gates)[2 * S][4]) {
#pragma unroll
  for (int i = 0; i < 2 * S; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      gates[i][k] = k < 2 * Halves ? P::gate(sum[i][0][k], sum[i][1][k]) : 0;
    }
  }
}

// Adds S steps of inputs times weights to pairs of sums.
template <typename P, int S, int Pairs>
PRSR_DEVICE void multiply(float (&sum)[Pairs][2][4], const typename P::Inputs (&inputs)[S],
                          const typename P::Weights (&weights)[Pairs][S]) {
#pragma unroll
  for (int i = 0; i < Pairs; ++i) {
#pragma unroll
    for (int s = 0; s < S; ++s) P::add(sum[i], inputs[s], weights[i][s]);
  }
}

// Sends the features behind the last layer to the blocks that compute logits.
template <typename P, int S>
PRSR_DEVICE void send_features(const RowContext<P>& r, int n,
                               const typename P::Inputs (&inputs)[S]) {
  if (!r.sends) return;
#pragma unroll
  for (int s = 0; s < S; ++s) send_step(r, inputs[s], n % r.a.channels * S + s);
}

// One warp takes S steps of features through all layers in its registers. A layer is two dependent
// products. `Halves` is 1 if the tile has at most 8 images.
template <typename P, int S, int Halves>
PRSR_DEVICE void chain(const RowContext<P>& r, int n) {
  ChainPlaces<P, S> at(r, n);
  float own[2 * S][4];
  first_features<P, S>(r, n, own);
  // Operands of a layer are loaded one layer ahead; weights only if the registers can hold both.
  constexpr bool kAhead = S == 1;
  Sums<S> next_sums;
  ChainWeights<P, S> next_weights;
  next_sums.load(at.sums);
  if (kAhead) next_weights.load(at.weights);
  typename P::Inputs inputs[S];
  for (int l = 0; l < r.a.layers; ++l) {
    if (!kAhead) next_weights.load(at.weights);
    Sums<S> sum = next_sums;
    const ChainWeights<P, S> weight = next_weights;
    at.sums += at.layer_sums;
    at.weights += at.layer_weights;
    if (l + 1 < r.a.layers) {
      next_sums.load(at.sums);
      if (kAhead) next_weights.load(at.weights);
    }
    put<P, S>(inputs, own, at.features);
    at.features += at.layer_features;
    multiply<P, S>(sum.gates, inputs, weight.gates);
    float gates[2 * S][4];
    gates_of<P, S, Halves>(sum.gates, gates);
    put<P, S>(inputs, gates, at.gated);
    at.gated += at.layer_gated;
    multiply<P, S>(sum.mix, inputs, weight.mix);
#pragma unroll
    for (int i = 0; i < S; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        own[2 * i][k] += sum.mix[i][0][k];
        own[2 * i + 1][k] += sum.mix[i][1][k];
      }
    }
  }
  put<P, S>(inputs, own, at.features);
  send_features<P, S>(r, n, inputs);
}

// The chain for any number of features, by all warps, 8 features at a time, through memory. A warp
// updates only features that it wrote itself.
template <typename P>
PRSR_DEVICE void wide_chain(const RowContext<P>& r, int n) {
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
  // Orders the writes of the first layer's features before the reads by other warps.
  device::block_barrier();
  for (int l = 0; l < r.a.layers; ++l) {
    for (int i = r.warp; i < 2 * S; i += kWarps) {
      float sum[2][4], gates[4];
      gate_sums(r, sum, in.x, in.colour, l, i, in.gate_steps + S);
      gate_tile<P>(sum, gates);
      P::store_tile(r.gated(l) + vectors<P>(in.mix_steps + i / 2), i % 2, gates);
    }
    // Orders the writes of the gates before the reads by other warps.
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
    // Orders the writes of the next layer's features before the reads by other warps.
    device::block_barrier();
  }
  if (!r.sends) return;
  const uint4* const last = r.kept(r.a.layers, in.x) + column;
  for (int s = r.warp; s < S; s += kWarps) {
    send_step(r, P::load(last + vectors<P>(s)), in.mix_steps + s);
  }
}

}  // namespace prsr
