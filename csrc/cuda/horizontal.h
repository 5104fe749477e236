// The horizontal stack, the head and the draws of one row: a launch walks all its pixels.
//
// A tile is 16 images, the rows of a product. A cluster of X blocks serves T ≤ X tiles: block r < T
// leads tile r, and the levels of a colour are divided over all blocks. For each sub-pixel
//
//   leaders:     given()   sums of all layers as far as the vertical stack, the pixels to the left
//                          and the earlier colours go, by all warps; what the draw will need
//                chain()   the colour's own features through all layers
//                send_features()                     to every block that has levels
//   each block:  head()    for each tile, hidden units and the logits of its levels, to the leader
//   leaders:     draw()    a value for each image
//
// Two things are waited for across blocks, each by a barrier that counts bytes; everything else is
// ordered by barriers of the block. A cluster of one sends nothing: its head reads the features where
// the chain has put them.
//
// Why one buffer for features and one for logits are enough: a leader sends features n + 1 (n counts
// sub-pixels) when it has drawn n, so when it has the logits n of every block that has levels, and a
// block has sent those when all its warps have read features n. And a block sends logits n + 1 when it
// has features n + 1, which the leader sends when its warps have read the logits n.
#pragma once

#include "arguments.h"
#include "draw.h"
#include "operands.h"

namespace prsr {

constexpr int kPairsAtOnce = 2;  // of a block's levels whose sums registers hold
constexpr int kLevelTile = 33;   // float4 from one tile of 8 logits to the next: no bank twice

// Where everything is in shared memory, for the host as well.
struct SharedLayout {
  int barriers, features, partial, logits, start, draws, end;
  int feature_bytes;  // of a tile's features of all colours

  // Behind its end lies what place() puts there (launch.h).
  PRSR_BOTH static SharedLayout of(int channels, int group_steps, int level_pairs, int tiles,
                                     int vectors, bool sends) {
    SharedLayout s{};
    s.feature_bytes = channels * group_steps * vectors * 512;
    s.barriers = 0;  // of the logits, and of each tile's features
    s.features = 128 * ((8 * (1 + tiles) + 127) / 128);
    s.partial = s.features + (sends ? tiles * s.feature_bytes : 0);
    s.logits = s.partial + 2 * kWarps * kPairsAtOnce * 2 * 512;
    s.start = s.logits + level_pairs * 2 * kLevelTile * 16;
    s.draws = s.start + kImages * level_pairs * 16 * 4;
    s.end = s.draws + 128 * 3;
    return s;
  }
};

template <typename P>
struct Horizontal {
  using Inputs = typename P::Inputs;
  using Weights = typename P::Weights;

  const HorizontalRow& a;
  unsigned char* const memory;
  const SharedLayout at;
  const int lane, warp, thread;
  const Place place;
  const int rank, ranks;
  const bool sends;         // whether there is another block
  const int cluster;        // number of the cluster
  const int cluster_tiles;  // its tiles that have an image
  const int64_t tile;       // that this block leads, if it does
  const bool leads;
  const int first_pair, pairs;  // of the levels that are this block's
  const int owners;             // blocks with levels: those of the lowest ranks
  int part = 0;                 // which half of the partial sums is written next

  PRSR_DEVICE Horizontal(const HorizontalRow& arguments, unsigned char* shared)
      : a(arguments),
        memory(shared),
        at(SharedLayout::of(a.channels, a.group_steps, a.level_pairs, a.tiles, P::kVectors,
                            device::ranks() > 1)),
        lane(device::lane()),
        warp(device::warp()),
        thread(device::thread()),
        place(Place::of(lane)),
        rank(device::rank()),
        ranks(device::ranks()),
        sends(device::kClusters && ranks > 1),
        cluster(device::block() / ranks),
        cluster_tiles(tiles_of(a, cluster)),
        tile(static_cast<int64_t>(cluster) * a.tiles + rank),
        leads(rank < cluster_tiles),
        first_pair(rank * share(a.level_pairs, ranks)),
        pairs(levels_of(a.level_pairs, first_pair, share(a.level_pairs, ranks))),
        owners((a.level_pairs + share(a.level_pairs, ranks) - 1) / share(a.level_pairs, ranks)) {}

  PRSR_DEVICE static int share(int pairs, int ranks) { return (pairs + ranks - 1) / ranks; }
  PRSR_DEVICE static int levels_of(int all, int first, int most) {
    const int left = all - first;
    return left < 0 ? 0 : left < most ? left : most;
  }
  PRSR_DEVICE static int tiles_of(const HorizontalRow& a, int cluster) {
    const int left = (a.images + kImages - 1) / kImages - cluster * a.tiles;
    return left < a.tiles ? left : a.tiles;
  }

  // Places in memory. Those of one lane begin at its own 16 bytes.

  PRSR_DEVICE device::Barrier* logits_arrived() const {
    return reinterpret_cast<device::Barrier*>(memory + at.barriers);
  }
  PRSR_DEVICE device::Barrier* features_arrived(int of_tile) const {
    return logits_arrived() + 1 + of_tile;
  }
  PRSR_DEVICE uint4* received(int of_tile) const {
    return reinterpret_cast<uint4*>(memory + at.features + of_tile * at.feature_bytes) + lane;
  }
  PRSR_DEVICE float4* partial(int of_warp, int pair) const {
    float4* const first = reinterpret_cast<float4*>(memory + at.partial);
    return first + ((part * kWarps + of_warp) * kPairsAtOnce + pair) * 64;
  }
  PRSR_DEVICE float4* logits(int level_tile) const {
    return reinterpret_cast<float4*>(memory + at.logits) + level_tile * kLevelTile;
  }
  // What logits begin with: the bias and the conditioning network's, [16, 16·P].
  PRSR_DEVICE float* start() const { return reinterpret_cast<float*>(memory + at.start); }
  PRSR_DEVICE float* noise() const { return reinterpret_cast<float*>(memory + at.draws); }
  PRSR_DEVICE float* temperature() const { return noise() + 32; }
  PRSR_DEVICE int* known() const { return reinterpret_cast<int*>(temperature() + 32); }

  PRSR_DEVICE int group() const { return 16 * a.group_steps; }
  PRSR_DEVICE int colour_steps() const { return a.channels * a.group_steps; }
  PRSR_DEVICE bool wide() const { return a.group_steps > 2; }
  // A layer's input of this block's tile, from p pixels left of x on.
  PRSR_DEVICE uint4* kept(int layer, int x) const {
    const int64_t column = (tile * (a.layers + 1) + layer) * (a.reach + a.width) + x;
    return a.kept + vectors<P>(column * colour_steps()) + lane;
  }
  PRSR_DEVICE uint4* gated(int layer) const {
    return a.gated + vectors<P>((tile * a.layers + layer) * colour_steps()) + lane;
  }
  // Of the colour: sums of both halves of 8 features, then those of the mix, a tile each.
  PRSR_DEVICE float4* given(int layer) const {
    float4* const first = a.given_offset >= 0
                              ? reinterpret_cast<float4*>(memory + a.given_offset)
                              : reinterpret_cast<float4*>(a.given) +
                                    tile * a.layers * 6 * a.group_steps * 32;
    return first + layer * 6 * a.group_steps * 32 + lane;
  }
  PRSR_DEVICE float4* residual(int feature_tile) const {
    return reinterpret_cast<float4*>(a.residual) +
           (tile * 2 * a.group_steps + feature_tile) * 32 + lane;
  }
  PRSR_DEVICE uint4* units(int of_tile) const {
    const int64_t block = static_cast<int64_t>(device::block()) * a.tiles + of_tile;
    return a.units + vectors<P>(block * a.channels * a.unit_steps) + lane;
  }
  PRSR_DEVICE int64_t image(int row) const { return tile * kImages + row; }
  PRSR_DEVICE int64_t value_index(int64_t of_image, int x) const {
    const int64_t row = of_image * (a.first_reach + a.height) + a.first_reach + a.y;
    return (row * (a.width + 2 * a.first_reach) + x) * a.channels;
  }

  PRSR_DEVICE static void read(const float4* from, float (&x)[4]) {
    const float4 v = *from;
    x[0] = v.x;
    x[1] = v.y;
    x[2] = v.z;
    x[3] = v.w;
  }
  PRSR_DEVICE static void write(float4* to, const float (&x)[4]) { *to = {x[0], x[1], x[2], x[3]}; }

  // sum += steps of inputs, from `inputs` on, by a pair's weights.
  PRSR_DEVICE static void accumulate(float (&sum)[2][4], const uint4* inputs, const uint4* weights,
                                     int steps) {
#pragma unroll (4 / P::kVectors)
    for (int s = 0; s < steps; ++s) {
      P::add(sum, P::load(inputs + vectors<P>(s)), P::weights(weights + vectors<P>(s)));
    }
  }

  // Both halves of 8 features of a layer, from the vertical stack and so many steps of the pixels to
  // the left and this one.
  PRSR_DEVICE void gate_sums(float (&sum)[2][4], int x, int colour, int layer, int feature_tile,
                             int steps) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t pixel = image(place.row + 8 * h) * a.width + x;
      const float* above =
          a.above + ((pixel * a.layers + layer) * a.channels + colour) * 2 * group() +
          8 * feature_tile + place.column;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 v = *reinterpret_cast<const float2*>(above + half * group());
        sum[half][2 * h] = v.x;
        sum[half][2 * h + 1] = v.y;
      }
    }
    accumulate(sum, kept(layer, x), gate_weights(colour, layer, feature_tile), steps);
  }
  PRSR_DEVICE const uint4* gate_weights(int colour, int layer, int feature_tile) const {
    const int64_t pair =
        (static_cast<int64_t>(layer) * a.channels + colour) * 2 * a.group_steps + feature_tile;
    return a.gates + vectors<P>(pair * (a.reach + 1) * colour_steps()) + lane;
  }

  // The mix of 16 features of a layer from so many steps of gates of this pixel, and its bias.
  PRSR_DEVICE void mix_sums(float (&sum)[2][4], int colour, int layer, int pair, int steps) const {
    const int64_t number = static_cast<int64_t>(layer) * a.channels + colour;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 b = *reinterpret_cast<const float2*>(a.mix_bias + number * group() + 16 * pair +
                                                        8 * i + place.column);
      sum[i][0] = sum[i][2] = b.x;
      sum[i][1] = sum[i][3] = b.y;
    }
    const int64_t weights = (number * a.group_steps + pair) * colour_steps();
    accumulate(sum, gated(layer), a.mix + vectors<P>(weights) + lane, steps);
  }

  // 8 of the colour's own features in the first layer. In fp32, by multiply-adds.
  PRSR_DEVICE void first(int x, int colour, int feature_tile) const {
    const int inputs = a.first_reach * a.channels + colour;
    const int output = 8 * feature_tile + place.column;
    const float* weight =
        a.first +
        static_cast<int64_t>(colour) * (a.first_reach + 1) * a.channels * group() + output;
    const float* one = a.values + value_index(image(place.row), x);
    const float* other = a.values + value_index(image(place.row + 8), x);
    const float2 b = *reinterpret_cast<const float2*>(a.first_bias + colour * group() + output);
    float sum[4] = {b.x, b.y, b.x, b.y};
#pragma unroll 4
    for (int i = 0; i < inputs; ++i) {
      const float2 w = *reinterpret_cast<const float2*>(weight + i * group());
      const float v = one[i], u = other[i];
      sum[0] += v * w.x;
      sum[1] += v * w.y;
      sum[2] += u * w.x;
      sum[3] += u * w.y;
    }
    write(residual(feature_tile), sum);
  }

  // Everything of a sub-pixel that does not wait for its own features.
  PRSR_DEVICE void give(int x, int colour) const {
    const int tiles = 2 * a.group_steps;
    // By the warp that has this tile in wide_chain(), too.
    for (int i = warp; i < tiles; i += kWarps) first(x, colour, i);
    if (!wide()) {
      const int steps = (a.reach * a.channels + colour) * a.group_steps;
      const int sums = a.layers * tiles, mixes = a.layers * a.group_steps;
      for (int i = warp; i < sums + mixes; i += kWarps) {
        float sum[2][4];
        float4* to;
        if (i < sums) {
          gate_sums(sum, x, colour, i / tiles, i % tiles, steps);
          to = given(i / tiles) + i % tiles * 64;
        } else {
          const int j = i - sums;
          mix_sums(sum, colour, j / a.group_steps, j % a.group_steps, colour * a.group_steps);
          to = given(j / a.group_steps) + tiles * 64 + j % a.group_steps * 64;
        }
        write(to, sum[0]);
        write(to + 32, sum[1]);
      }
    }
    prepare_draw(x, colour);
  }

  // What the draw adds to logits, and what it reads beside them.
  PRSR_DEVICE void prepare_draw(int x, int colour) const {
    const int padded = 16 * a.level_pairs;
    const int live = live_images();
    for (int i = thread; i < live * padded; i += kThreads) {
      const int row = i / padded, level = i % padded;
      if (level >= a.levels) continue;
      const int64_t sub_pixel = pixel(row, x) * a.channels + colour;
      start()[i] =
          a.output_bias[colour * padded + level] + a.conditioning[sub_pixel * a.levels + level];
    }
    if (thread < live) {
      noise()[thread] = a.noise[pixel(thread, x) * a.channels + colour];
      const int64_t at_picture = picture_index(thread, x, colour);
      known()[thread] =
          a.known != nullptr && a.known[at_picture] ? a.picture[at_picture] : -1;
    }
  }
  PRSR_DEVICE int live_images() const {
    const int64_t left = a.images - tile * kImages;
    return left < kImages ? static_cast<int>(left) : kImages;
  }
  PRSR_DEVICE int64_t pixel(int row, int x) const {
    return (image(row) * a.height + a.y) * a.width + x;
  }
  PRSR_DEVICE int64_t picture_index(int row, int x, int colour) const {
    return ((image(row) * a.channels + colour) * a.height + a.y) * a.width + x;
  }

  // What a layer of the chain reads, in registers.
  template <int S>
  struct Layer {
    float gates[2 * S][2][4], mix[S][2][4];
    Weights gate_weights[2 * S][S], mix_weights[S][S];
  };
  template <int S>
  PRSR_DEVICE void read_layer(Layer<S>& layer, int number, int colour) const {
    const float4* sums = given(number);
    const int index = number * a.channels + colour;
    const uint4* weights =
        (a.chain_offset >= 0 ? reinterpret_cast<const uint4*>(memory + a.chain_offset) : a.chain) +
        vectors<P>(static_cast<int64_t>(index) * 3 * S * S) + lane;
#pragma unroll
    for (int i = 0; i < 2 * S; ++i) {
      read(sums + i * 64, layer.gates[i][0]);
      read(sums + i * 64 + 32, layer.gates[i][1]);
#pragma unroll
      for (int s = 0; s < S; ++s) {
        layer.gate_weights[i][s] = P::weights(weights + vectors<P>(i * S + s));
      }
    }
#pragma unroll
    for (int i = 0; i < S; ++i) {
      read(sums + (2 * S + i) * 64, layer.mix[i][0]);
      read(sums + (2 * S + i) * 64 + 32, layer.mix[i][1]);
#pragma unroll
      for (int s = 0; s < S; ++s) {
        layer.mix_weights[i][s] = P::weights(weights + vectors<P>((2 * S + i) * S + s));
      }
    }
  }

  // A colour's own features through all layers, by one warp, in registers: S steps of them. A layer
  // is two products that wait for each other.
  template <int S>
  PRSR_DEVICE void chain(int x, int colour) const {
    float own[2 * S][4];
#pragma unroll
    for (int i = 0; i < 2 * S; ++i) read(residual(i), own[i]);
    // Where registers hold two layers, the next one is asked for while this one is computed.
    constexpr bool kAhead = S * P::kVectors <= 2;
    Layer<S> next;
    if (kAhead) read_layer<S>(next, 0, colour);
    const int64_t column = vectors<P>(a.reach * colour_steps() + colour * S);
    for (int l = 0; l < a.layers; ++l) {
      if (!kAhead) read_layer<S>(next, l, colour);
      Layer<S> layer = next;
      if (kAhead && l + 1 < a.layers) read_layer<S>(next, l + 1, colour);
      Inputs inputs[S];
      put<S>(inputs, own, kept(l, x) + column);
      float gates[2 * S][4];
#pragma unroll
      for (int i = 0; i < 2 * S; ++i) {
#pragma unroll
        for (int s = 0; s < S; ++s) P::add(layer.gates[i], inputs[s], layer.gate_weights[i][s]);
        gate_tile<P>(layer.gates[i], gates[i]);
      }
      put<S>(inputs, gates, gated(l) + vectors<P>(colour * S));
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
    Inputs inputs[S];
    put<S>(inputs, own, kept(a.layers, x) + column);
    if (sends) {
#pragma unroll
      for (int s = 0; s < S; ++s) send_step(inputs[s], colour * S + s);
    }
  }
  // Features as inputs of a product, and into memory.
  template <int S>
  PRSR_DEVICE static void put(Inputs (&inputs)[S], const float (&x)[2 * S][4], uint4* to) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      inputs[s] = P::pack(x[2 * s], x[2 * s + 1]);
#pragma unroll
      for (int v = 0; v < P::kVectors; ++v) to[vectors<P>(s) + 32 * v] = P::vector(inputs[s], v);
    }
  }

  // The same for any number of features, by all warps: 8 features each in turn, through memory.
  PRSR_DEVICE void wide_chain(int x, int colour) const {
    const int tiles = 2 * a.group_steps, own = colour * a.group_steps;
    const int64_t column = vectors<P>(a.reach * colour_steps() + own);
    for (int i = warp; i < tiles; i += kWarps) {
      float features[4];
      read(residual(i), features);
      P::store_tile(kept(0, x) + column + vectors<P>(i / 2), i % 2, features);
    }
    // Orders the writes of the first layer's features before their reads by other warps.
    device::block_barrier();
    for (int l = 0; l < a.layers; ++l) {
      for (int i = warp; i < tiles; i += kWarps) {
        float sum[2][4], gates[4];
        gate_sums(sum, x, colour, l, i, a.reach * colour_steps() + own + a.group_steps);
        gate_tile<P>(sum, gates);
        P::store_tile(gated(l) + vectors<P>(own + i / 2), i % 2, gates);
      }
      // Orders the writes of the gates before their reads by other warps.
      device::block_barrier();
      for (int i = warp; i < a.group_steps; i += kWarps) {
        float sum[2][4];
        mix_sums(sum, colour, l, i, own + a.group_steps);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float features[4];
          read(residual(2 * i + j), features);
#pragma unroll
          for (int k = 0; k < 4; ++k) features[k] += sum[j][k];
          write(residual(2 * i + j), features);
          P::store_tile(kept(l + 1, x) + column + vectors<P>(i), j, features);
        }
      }
      // Orders the writes of the next layer's features before their reads by other warps.
      device::block_barrier();
    }
    if (!sends) return;
    const uint4* last = kept(a.layers, x) + column;
    for (int s = warp; s < a.group_steps; s += kWarps) {
      send_step(P::load(last + vectors<P>(s)), own + s);
    }
  }

  PRSR_DEVICE void send_step(const Inputs& inputs, int step) const {
#pragma unroll
    for (int v = 0; v < P::kVectors; ++v) {
      const uint4 words = P::vector(inputs, v);
      for (int to = 0; to < owners; ++to) {
        device::send(received(rank) + vectors<P>(step) + 32 * v, words, features_arrived(rank), to);
      }
    }
  }

  // 16 hidden units of the colour, ready as inputs.
  PRSR_DEVICE Inputs hidden(const uint4* features, int colour, int step) const {
    const int number = colour * a.unit_steps + step;
    float sum[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 b =
          *reinterpret_cast<const float2*>(a.hidden_bias + 16 * number + 8 * i + place.column);
      sum[i][0] = sum[i][2] = b.x;
      sum[i][1] = sum[i][3] = b.y;
    }
    accumulate(sum, features,
               a.hidden + vectors<P>(static_cast<int64_t>(number) * colour_steps()) + lane,
               (colour + 1) * a.group_steps);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[i][k] = sum[i][k] > 0 ? sum[i][k] : 0;
    }
    return P::pack(sum[0], sum[1]);
  }

  // Logits of this block's levels for one of the cluster's tiles, from the features at `features`.
  //
  // A warp adds up every eighth step of a colour's units, and warps are added in order: how levels
  // are divided over blocks changes no sum. Units of earlier colours are what the warp itself, lane
  // by lane, wrote when they were computed.
  PRSR_DEVICE void head(const uint4* features, int of_tile, int colour) {
    const int all = a.channels * a.unit_steps;
    uint4* const kept_units = units(of_tile);
    for (int first = 0; first < pairs; first += kPairsAtOnce) {
      const int count = pairs - first < kPairsAtOnce ? pairs - first : kPairsAtOnce;
      const uint4* const weights =
          a.output +
          vectors<P>((static_cast<int64_t>(colour) * a.level_pairs + first_pair + first) * all) +
          lane;
      float sum[kPairsAtOnce][2][4] = {};
      for (int c = 0; c <= colour; ++c) {
        for (int s = warp; s < a.unit_steps; s += kWarps) {
          const int step = c * a.unit_steps + s;
          uint4* const place_of_step = kept_units + vectors<P>(step);
          Inputs inputs;
          if (c == colour && first == 0) {
            inputs = hidden(features, colour, s);
#pragma unroll
            for (int v = 0; v < P::kVectors; ++v) place_of_step[32 * v] = P::vector(inputs, v);
          } else {
            inputs = P::load(place_of_step);
          }
#pragma unroll
          for (int q = 0; q < kPairsAtOnce; ++q) {
            if (q < count) P::add(sum[q], inputs, P::weights(weights + vectors<P>(q * all + step)));
          }
        }
      }
#pragma unroll
      for (int q = 0; q < kPairsAtOnce; ++q) {
        if (q >= count) continue;
        write(partial(warp, q) + lane, sum[q][0]);
        write(partial(warp, q) + 32 + lane, sum[q][1]);
      }
      // Orders the writes of the sums before they are added up, and, since the two halves take
      // turns, the reads of the sums before these before those behind these are written.
      device::block_barrier();
      if (thread < 64 * count) {
        const int q = thread / 64, place_of_sum = thread % 64;
        float total[4], more[4];
        read(partial(0, q) + place_of_sum, total);
#pragma unroll
        for (int w = 1; w < kWarps; ++w) {
          read(partial(w, q) + place_of_sum, more);
#pragma unroll
          for (int k = 0; k < 4; ++k) total[k] += more[k];
        }
        float4* const to = logits(2 * (first_pair + first + q) + place_of_sum / 32) + lane;
        if (sends) {
          device::send(reinterpret_cast<uint4*>(to),
                       {device::bits_of(total[0]), device::bits_of(total[1]),
                        device::bits_of(total[2]), device::bits_of(total[3])},
                       logits_arrived(), of_tile);
        } else {
          write(to, total);
        }
      }
      part ^= 1;
    }
  }

  // A value for each of the tile's images, a warp for each in turn.
  PRSR_DEVICE void draw_values(int x, int colour) const {
    const int live = live_images();
    for (int row = warp; row < live; row += kWarps) {
      float sums[kLaneLevels];
      const bool any = lane < 2 * a.level_pairs;
#pragma unroll
      for (int i = 0; i < kLaneLevels / 2; ++i) {
        const float4* const pair = logits(any ? lane : 0) + row % 8 * 4 + i;
        const float2 both = reinterpret_cast<const float2*>(pair)[row / 8];
        sums[2 * i] = both.x;
        sums[2 * i + 1] = both.y;
      }
#pragma unroll
      for (int i = 0; i < kLaneLevels; ++i) {
        const int level = kLaneLevels * lane + i;
        if (level < a.levels) sums[i] += start()[row * 16 * a.level_pairs + level];
      }
      int level = draw(sums, a.levels, noise()[row], temperature()[row]);
      if (known()[row] >= 0) level = known()[row];
      if (lane == 0) {
        a.picture[picture_index(row, x, colour)] = static_cast<uint8_t>(level);
        a.values[value_index(image(row), x + a.first_reach) + colour] =
            static_cast<float>(level) / static_cast<float>(a.levels - 1) - 0.5f;
      }
    }
  }

  // Weights of the chain and temperatures into shared memory, and the barriers between blocks.
  PRSR_DEVICE void begin() const {
    if (leads) {
      if (a.chain_offset >= 0) {
        uint4* const to = reinterpret_cast<uint4*>(memory + a.chain_offset);
        const int64_t count =
            vectors<P>(static_cast<int64_t>(a.layers) * a.channels * 3 * a.group_steps *
                       a.group_steps);
        for (int64_t i = thread; i < count; i += kThreads) to[i] = a.chain[i];
      }
      if (thread < live_images()) temperature()[thread] = a.temperature[image(thread)];
    }
    if (!sends) return;  // the first barrier behind give() orders these writes
    if (thread == 0) {
      device::init(logits_arrived(), 1);
      if (leads) device::arrive_expecting(logits_arrived(), logits_bytes());
      for (int t = 0; t < cluster_tiles; ++t) {
        device::init(features_arrived(t), 1);
        device::arrive_expecting(features_arrived(t), features_bytes());
      }
      device::publish_barriers();
    }
    // Nothing is sent before every block runs and has its barriers.
    device::cluster_barrier();
  }
  PRSR_DEVICE int logits_bytes() const { return a.level_pairs * 2 * 512; }
  PRSR_DEVICE int features_bytes() const { return static_cast<int>(vectors<P>(a.group_steps)) * 16; }

  PRSR_DEVICE void row() {
    begin();
    for (int n = 0; n < a.width * a.channels; ++n) {
      const int x = n / a.channels, colour = n % a.channels;
      const uint32_t parity = n & 1;
      if (leads) {
        give(x, colour);
        // Orders the writes of give() before the chain and the draw read them.
        device::block_barrier();
        if (wide()) {
          wide_chain(x, colour);
        } else if (warp == 0) {
          if (a.group_steps == 1) {
            chain<1>(x, colour);
          } else {
            chain<2>(x, colour);
          }
        }
        // Orders the chain's writes of features before the head's reads.
        if (!sends && !wide()) device::block_barrier();
      }
      if (pairs > 0) {
        for (int t = 0; t < cluster_tiles; ++t) {
          const uint4* features = received(t);
          if (sends) {
            device::wait(features_arrived(t), parity);
            // For the next sub-pixel, whose features come when this block has sent its logits.
            if (thread == 0) device::arrive_expecting(features_arrived(t), features_bytes());
          } else {
            features = kept(a.layers, x) + vectors<P>(a.reach * colour_steps());
          }
          head(features, t, colour);
        }
      }
      if (leads) {
        if (sends) {
          device::wait(logits_arrived(), parity);
          // For the next sub-pixel, whose logits come when this block has sent features.
          if (thread == 0) device::arrive_expecting(logits_arrived(), logits_bytes());
        } else {
          // Orders the writes of logits before the draw reads them.
          device::block_barrier();
        }
        draw_values(x, colour);
        // Orders the writes of values, and of the chain's features and gates, before their reads in
        // give(), and the reads of what give() wrote, and of logits, before the next sub-pixel's.
        device::block_barrier();
      }
    }
  }
};

template <typename P>
PRSR_DEVICE void horizontal_row(const HorizontalRow& a, unsigned char* shared) {
  Horizontal<P> row(a, shared);
  row.row();
}

}  // namespace prsr
