// The chain with look-ahead: one dependent product per layer instead of two.
//
// A layer's output is h = s + M·g, where g are its gates and s is known before them: the layer's
// input plus the mix's bias and its contributions of earlier colours. The next layer's
// pre-activations are therefore
//   given + C·h = given + C·s + (C·M)·g.
// C·s is computed in the shadow of the gates, so only (C·M)·g waits for them. C·M is multiplied
// when the weights are packed. M·g, which the next layer's s needs, is in the shadow of its gates.
#pragma once

#include "chain.h"

namespace prsr {

// What a layer multiplies: its own mix, and the centre tap of the next layer, also times that mix.
// The order in memory is that of HorizontalRow::chain.
template <typename P, int S>
struct LookAheadWeights {
  typename P::Weights centre[2 * S][S], product[2 * S][S], mix[S][S];

  PRSR_DEVICE void load_centre(const uint4* next) { load_weights<P, S>(centre, next); }
  // Of the pairs from First up to before End.
  template <int First, int End>
  PRSR_DEVICE void load_product(const uint4* next) {
#pragma unroll
    for (int i = First; i < End; ++i) {
#pragma unroll
      for (int s = 0; s < S; ++s)
        product[i][s] = P::weights(next + vectors<P>((2 * S + i) * S + s));
    }
  }
  PRSR_DEVICE void load_mix(const uint4* own) {
    load_weights<P, S>(mix, own + vectors<P>(4 * S * S));
  }
};

// Goes through the layers of look_ahead_chain().
template <typename P, int S>
struct LookAhead {
  ChainPlaces<P, S> at;  // its sums and weights are those of the layer after `own_weights`
  const uint4* own_weights;
  Sums<S> sums;  // of the next layer
  LookAheadWeights<P, S> weights;

  PRSR_DEVICE LookAhead(const RowContext<P>& r, int n) : at(r, n), own_weights(at.weights) {}

  // Goes to the next layer. Behind the last one, its own operands are loaded again and not used.
  PRSR_DEVICE void advance(bool more) {
    own_weights = at.weights;
    if (!more) return;
    at.sums += at.layer_sums;
    at.weights += at.layer_weights;
  }
  PRSR_DEVICE void load() {
    sums.load(at.sums);
    weights.load_centre(at.weights);
    weights.template load_product<0, 2 * S>(at.weights);
    weights.load_mix(own_weights);
  }
  // Stores a layer's features as inputs of the next one.
  PRSR_DEVICE void put_features(typename P::Inputs (&inputs)[S], const float (&own)[2 * S][4]) {
    put<P, S>(inputs, own, at.features);
    at.features += at.layer_features;
  }
  PRSR_DEVICE void put_gates(typename P::Inputs (&inputs)[S], const float (&gates)[2 * S][4]) {
    put<P, S>(inputs, gates, at.gated);
    at.gated += at.layer_gated;
  }
};

// Adds features to the mix of a layer, which has the same layout.
template <int S>
PRSR_DEVICE void add_own(Sums<S>& sum, const float (&own)[2 * S][4]) {
#pragma unroll
  for (int i = 0; i < 2 * S; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) sum.mix[i / 2][i % 2][k] += own[i][k];
  }
}
template <int S>
PRSR_DEVICE void take_own(const Sums<S>& sum, float (&own)[2 * S][4]) {
#pragma unroll
  for (int i = 0; i < 2 * S; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) own[i][k] = sum.mix[i / 2][i % 2][k];
  }
}

// As chain(), for weights with look-ahead. If the registers can hold them, a layer's operands are
// loaded one layer ahead, otherwise as late as their latency is still hidden.
template <typename P, int S, int Halves>
PRSR_DEVICE void look_ahead_chain(const RowContext<P>& r, int n) {
  constexpr bool kAhead = S == 1;
  constexpr int kEarly = 2 * S / P::kVectors;  // pairs that are loaded before the gates
  const int last = r.a.layers - 1;
  LookAhead<P, S> layer(r, n);
  float own[2 * S][4], gates[2 * S][4];
  typename P::Inputs inputs[S];
  Sums<S> sum;
  sum.load(layer.at.sums);
  layer.weights.load_centre(layer.at.weights);
  first_features<P, S>(r, n, own);
  layer.put_features(inputs, own);
  multiply<P, S>(sum.gates, inputs, layer.weights.centre);
  if (kAhead) {
    layer.advance(last > 0);
    layer.load();
  }
  for (int l = 0; l < last; ++l) {
    if (!kAhead) {
      layer.advance(true);
      layer.sums.load_gates(layer.at.sums);
      layer.weights.load_centre(layer.at.weights);
    }
    LookAheadWeights<P, S> weights = layer.weights;
    Sums<S> next = layer.sums;
    if (kAhead) {
      layer.advance(l + 1 < last);
      layer.load();
    }
    add_own<S>(sum, own);
#pragma unroll
    for (int s = 0; s < S; ++s) inputs[s] = P::pack(sum.mix[s][0], sum.mix[s][1]);
    multiply<P, S>(next.gates, inputs, weights.centre);
    if (!kAhead) weights.template load_product<0, kEarly>(layer.at.weights);
    gates_of<P, S, Halves>(sum.gates, gates);
    layer.put_gates(inputs, gates);
    if (!kAhead) weights.template load_product<kEarly, 2 * S>(layer.at.weights);
    multiply<P, S>(next.gates, inputs, weights.product);
    if (!kAhead) {
      weights.load_mix(layer.own_weights);
      next.load_mix(layer.at.sums);
    }
    multiply<P, S>(sum.mix, inputs, weights.mix);
    take_own<S>(sum, own);
    layer.put_features(inputs, own);
    sum = next;
  }
  if (!kAhead) layer.weights.load_mix(layer.at.weights);
  add_own<S>(sum, own);
  gates_of<P, S, Halves>(sum.gates, gates);
  layer.put_gates(inputs, gates);
  multiply<P, S>(sum.mix, inputs, layer.weights.mix);
  take_own<S>(sum, own);
  layer.put_features(inputs, own);
  send_features<P, S>(r, n, inputs);
}

}  // namespace prsr
