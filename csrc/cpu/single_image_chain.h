// The chain of an image that is drawn alone: one colour's features, from the first layer to the
// head. Every step waits for the one before it, so latency decides. A step therefore multiplies the
// colour's own features only, and the sums stay in registers. The contributions to later colours
// are added while the processor waits for a gate.
#pragma once

#include "gate_and_draw.h"
#include "row_context.h"

namespace {

// With operands of one type: floats, or pairs of bfloat16.
template <typename Operand>
class SingleImageChain : RowContext {
 public:
  explicit SingleImageChain(const RowContext& context) : RowContext(context) {}

  // Whether it serves these images: there is one, and the features of a colour fit a panel.
  bool serves() const { return b == 1 && count == 1 && features.size(0) <= kPanel; }

  // Goes through all blocks for colour g of pixel x, from `own`, its features in the first layer.
  void run(int64_t x, int64_t g, const float* own) {
    panels(g) == 1 ? run_colour<kPanelVecs>(x, g, own) : run_colour<2 * kPanelVecs>(x, g, own);
  }

 private:
  // The features of a colour.
  struct Features {
    Vec lanes[kPanelVecs];
  };

  int64_t panels(int64_t g) const { return whole_lines(2 * features.size(g)) / kPanel; }

  template <int Vecs>
  void run_colour(int64_t x, int64_t g, const float* from) {
    const int64_t begin = features.begin_of(g), size = features.size(g);
    const int64_t first = feature_operands.begin_of(g), operands = feature_operands.size(g);
    alignas(64) float own_copy[kPanel], gates_copy[kPanel];
    Features own, gates;
    for (int v = 0; v < kPanelVecs; ++v) {
      own.lanes[v] = load_first(from + v * kLanes, size - v * kLanes);
    }
    const Operand* inputs =
        put(own, own_copy, size, horizontal_at<Operand>(0, 0, c.reach + x) + first);
    for (int64_t l = 0; l < c.layers; ++l) {
      const Step& step = net.groups[g].steps[l];
      Vec sums[1][Vecs];
      for (int v = 0; v < Vecs; ++v) sums[0][v] = load(given_at(l) + 2 * begin + v * kLanes);
      add_own<Vecs>(inputs, first, operands, step.centre, sums);
      gate_halves(sums[0], size, gates);
      const Operand* const gated = put(gates, gates_copy, size, gated_at<Operand>(l) + first);
      for (int64_t later = g + 1; later < c.channels; ++later) {
        panels(later) == 1 ? add_centre<kPanelVecs>(inputs, g, later, l)
                           : add_centre<2 * kPanelVecs>(inputs, g, later, l);
      }
      Vec mix[1][kPanelVecs];
      load_mix(g, g, l, mix);
      add_own<kPanelVecs>(gated, first, operands, step.mix.weights, mix);
      for (int v = 0; v < kPanelVecs; ++v) own.lanes[v] = mix[0][v] + own.lanes[v];
      inputs = put(own, own_copy, size, horizontal_at<Operand>(0, l + 1, c.reach + x) + first);
      for (int64_t later = g + 1; later < c.channels; ++later) add_mix(gated, g, later, l);
    }
  }

  // Adds the products of a colour's operands with their weights, of which `first` rows precede.
  template <int Vecs>
  static PRSR_INLINE void add_own(const Operand* inputs, int64_t first, int64_t operands,
                                  const float* weights, Vec (&sums)[1][Vecs]) {
    constexpr int64_t width = Vecs * kLanes;
    add_inputs(inputs, 0, operands, reinterpret_cast<const Operand*>(weights) + first * width,
               width, sums);
  }

  // Adds the contribution of colour g to the pre-activations of a later colour.
  template <int Vecs>
  PRSR_INLINE void add_centre(const Operand* inputs, int64_t g, int64_t later, int64_t l) {
    float* const to = given_at(l) + 2 * features.begin_of(later);
    Vec sums[1][Vecs];
    for (int v = 0; v < Vecs; ++v) sums[0][v] = load(to + v * kLanes);
    add_own<Vecs>(inputs, feature_operands.begin_of(g), feature_operands.size(g),
                  net.groups[later].steps[l].centre, sums);
    keep(sums, to, 2 * features.size(later));
  }

  // The same for its mix.
  PRSR_INLINE void add_mix(const Operand* gated, int64_t g, int64_t later, int64_t l) {
    Vec sums[1][kPanelVecs];
    load_mix(g, later, l, sums);
    add_own<kPanelVecs>(gated, feature_operands.begin_of(g), feature_operands.size(g),
                        net.groups[later].steps[l].mix.weights, sums);
    keep(sums, mix_at(l) + features.begin_of(later), features.size(later));
  }

  float* mix_at(int64_t layer) const { return s.mix_sums + layer * c.features; }

  // The sums of the mix of `colour`, without the contributions of colour g and later ones.
  PRSR_INLINE void load_mix(int64_t g, int64_t colour, int64_t l, Vec (&sums)[1][kPanelVecs]) {
    const float* const from =
        g == 0 ? net.groups[colour].steps[l].mix.bias : mix_at(l) + features.begin_of(colour);
    for (int v = 0; v < kPanelVecs; ++v) sums[0][v] = load(from + v * kLanes);
  }

  template <int Vecs>
  static PRSR_INLINE void keep(const Vec (&sums)[1][Vecs], float* to, int64_t size) {
    for (int v = 0; v < Vecs; ++v) {
      if (size > v * kLanes) store_first(to + v * kLanes, sums[0][v], size - v * kLanes);
    }
  }

  // Gates of pre-activations: their second halves follow the first.
  template <int Vecs>
  PRSR_INLINE void gate_halves(const Vec (&sums)[Vecs], int64_t size, Features& gates) {
    if constexpr (kPanelVecs == 1) {
      gates.lanes[0] = gate(sums[0], lanes_from(sums[0], sums[Vecs - 1], size));
    } else {
      alignas(64) float both[3 * kPanel];
      for (int v = 0; v < Vecs; ++v) store(both + v * kLanes, sums[v]);
      for (int v = 0; v < kPanelVecs; ++v) {
        gates.lanes[v] = gate(sums[v], load(both + size + v * kLanes));
      }
    }
  }

  // Caches features as operands. Returns where to read them: in `copy`, if operands are floats,
  // because vectors that are stored whole can be read sooner.
  static PRSR_INLINE const Operand* put(const Features& x, float* copy, int64_t size,
                                        Operand* cached) {
    for (int v = 0; v < kPanelVecs; ++v) store(copy + v * kLanes, x.lanes[v]);
    if constexpr (std::is_same_v<Operand, float>) {
      for (int v = 0; v < kPanelVecs; ++v) {
        if (size > v * kLanes) store_first(cached + v * kLanes, x.lanes[v], size - v * kLanes);
      }
      return copy;
    } else {
      round_features(copy, size, 1, cached);
      return cached;
    }
  }
};

}  // namespace
