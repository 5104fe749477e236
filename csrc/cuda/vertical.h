// The vertical stack of one row: v' = gate(a), a = v * kernel over rows y − p … y of a layer's
// input v, and above = a·link. Row y of every layer depends only on image rows above y, so all
// columns are one product. Its rows are positions (a column of an image each), 16 to a tile.
//
// A layer reads neighbouring columns of the layer below, so a block has whole rows of its images,
// and blocks share nothing.
#pragma once

#include "arguments.h"
#include "mma.h"

namespace prsr {

// The positions of a block: `count` of them, image after image.
struct Positions {
  int first_image, count, width;

  PRSR_DEVICE static Positions of(const VerticalRow& a) {
    const int first = device::block() * a.images_per_block;
    const int left = a.images - first;
    return {first, (left < a.images_per_block ? left : a.images_per_block) * a.width, a.width};
  }
  PRSR_DEVICE int tiles() const { return (count + kImages - 1) / kImages; }
};

// The two positions of a tile that this lane holds. Those beyond the last position read the last
// one and write nothing.
struct Pair {
  int64_t image[2];
  int column[2];
  bool live[2];

  PRSR_DEVICE Pair(const Positions& positions, int tile, int row) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int wanted = tile * kImages + row + 8 * h;
      live[h] = wanted < positions.count;
      const int position = live[h] ? wanted : positions.count - 1;
      image[h] = positions.first_image + position / positions.width;
      column[h] = position % positions.width;
    }
  }
};

template <typename P>
struct Vertical {
  using Element = typename P::Element;
  const VerticalRow& a;
  const Positions positions;
  const int lane;
  const LanePosition lane_position;

  PRSR_DEVICE explicit Vertical(const VerticalRow& arguments)
      : a(arguments),
        positions(Positions::of(arguments)),
        lane(device::lane()),
        lane_position(LanePosition::of(lane)) {}

  PRSR_DEVICE int features() const { return 16 * a.feature_steps; }
  PRSR_DEVICE int64_t row_size() const {
    return static_cast<int64_t>(a.width + 2 * a.reach) * features();
  }
  // This lane's column of a layer's window at a position, in slot 0.
  PRSR_DEVICE Element* window(int layer, int64_t image, int column) const {
    const int64_t layers = (image * a.layers + layer) * (a.reach + 1);
    return static_cast<Element*>(a.cache) + layers * row_size() +
           static_cast<int64_t>(column) * features() + lane_position.column;
  }
  PRSR_DEVICE const Element* condition(int64_t image, int column) const {
    const int64_t pixel = (image * a.height + a.y) * a.width + column;
    return static_cast<const Element*>(a.condition) + pixel * (16 * a.condition_steps) +
           lane_position.column;
  }
  PRSR_DEVICE uint4* preactivations(int layer, int tile) const {
    const int tiles = (a.images_per_block * a.width + kImages - 1) / kImages;
    const int64_t block = static_cast<int64_t>(device::block()) * 2 + layer % 2;
    return a.preactivations + vectors<P>((block * tiles + tile) * 2 * a.feature_steps) + lane;
  }

  // Computes layer 0's row: 8 features of a tile of positions, in fp32 multiply-adds.
  PRSR_DEVICE void first(int tile, int outputs) const {
    const Pair at(positions, tile, lane_position.row);
    const int inputs = (2 * a.first_reach + 1) * a.channels;
    const int64_t row = static_cast<int64_t>(a.width + 2 * a.first_reach) * a.channels;
    const int output = 8 * outputs + lane_position.column;
    const float* value[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      value[h] = a.values + (at.image[h] * (a.first_reach + a.height) + a.y) * row +
                 at.column[h] * a.channels;
    }
    const float* weight = a.first + output;
    float sum[2][2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h][0] = a.first_bias[output];
      sum[h][1] = a.first_bias[output + 1];
    }
    for (int r = 0; r < a.first_reach; ++r) {
#pragma unroll 4
      for (int i = 0; i < inputs; ++i) {
        const float2 w = *reinterpret_cast<const float2*>(weight);
        weight += features();
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float x = value[h][r * row + i];
          sum[h][0] += x * w.x;
          sum[h][1] += x * w.y;
        }
      }
    }
    put(0, at, outputs, sum);
  }

  // Writes 8 features of row y of a layer's input.
  PRSR_DEVICE void put(int layer, const Pair& at, int outputs, const float (&x)[2][2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!at.live[h]) continue;
      Element* row =
          window(layer, at.image[h], at.column[h] + a.reach) + a.y % (a.reach + 1) * row_size();
      P::scatter(row + 8 * outputs, x[h][0], x[h][1]);
    }
  }

  // Accumulates steps whose inputs are adjacent in memory for each row of the product.
  template <int Tiles, int Pairs>
  PRSR_DEVICE void accumulate(float (&sum)[Tiles][Pairs][2][4],
                              const Element* const (&rows)[Tiles][2], int64_t offset, int steps,
                              const uint4*& weights, int64_t pair_size) const {
#pragma unroll(2 / P::kVectors)
    for (int s = 0; s < steps; ++s) {
      typename P::Inputs inputs[Tiles];
#pragma unroll
      for (int i = 0; i < Tiles; ++i) {
        inputs[i] = P::gather(rows[i][0] + offset + 16 * s, rows[i][1] + offset + 16 * s);
      }
      multiply<Tiles, Pairs>(sum, inputs, weights, pair_size);
    }
  }

  // One step; advances the weights to the next.
  template <int Tiles, int Pairs>
  PRSR_DEVICE void multiply(float (&sum)[Tiles][Pairs][2][4],
                            const typename P::Inputs (&inputs)[Tiles], const uint4*& weights,
                            int64_t pair_size) const {
#pragma unroll
    for (int j = 0; j < Pairs; ++j) {
      const typename P::Weights w = P::weights(weights + j * pair_size);
#pragma unroll
      for (int i = 0; i < Tiles; ++i) P::add(sum[i][j], inputs[i], w);
    }
    weights += vectors<P>(1);
  }

  // Initialises sums with the bias of both halves, which are `half` apart.
  template <int Tiles, int Pairs>
  PRSR_DEVICE void begin(float (&sum)[Tiles][Pairs][2][4], const float* bias, int half) const {
#pragma unroll
    for (int j = 0; j < Pairs; ++j) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float2 b =
            *reinterpret_cast<const float2*>(bias + 8 * j + h * half + lane_position.column);
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          sum[i][j][h][0] = sum[i][j][h][2] = b.x;
          sum[i][j][h][1] = sum[i][j][h][3] = b.y;
        }
      }
    }
  }

  // Computes the pre-activations of a layer from its input: both halves of 8·Pairs features of
  // `Tiles` tiles of positions. Stores them for link(), and the gates as the next layer's input.
  template <int Tiles, int Pairs>
  PRSR_DEVICE void gates(int layer, int tile, int pair) const {
    const int pairs = 2 * a.feature_steps, window_steps = (2 * a.reach + 1) * a.feature_steps;
    const int64_t steps = (a.reach + 1) * window_steps + a.condition_steps;
    float sum[Tiles][Pairs][2][4];
    begin(sum, a.gate_bias + layer * 2 * features() + 8 * pair, features());
    const uint4* weights =
        a.gates + vectors<P>((static_cast<int64_t>(layer) * pairs + pair) * steps) + lane;
    const Element* rows[Tiles][2];
    const Element* conditions[Tiles][2];
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      const Pair at(positions, tile + i, lane_position.row);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        rows[i][h] = window(layer, at.image[h], at.column[h]);
        conditions[i][h] = condition(at.image[h], at.column[h]);
      }
    }
    for (int r = 0; r <= a.reach; ++r) {
      // Row y − p + r is in the slot of y + 1 + r.
      const int64_t offset = (a.y + 1 + r) % (a.reach + 1) * row_size();
      accumulate(sum, rows, offset, window_steps, weights, vectors<P>(steps));
    }
    accumulate(sum, conditions, 0, a.condition_steps, weights, vectors<P>(steps));
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      if (tile + i >= positions.tiles()) continue;
      const Pair at(positions, tile + i, lane_position.row);
      uint4* out = preactivations(layer, tile + i);
#pragma unroll
      for (int j = 0; j < Pairs; ++j) {
        P::store_tile(out + vectors<P>(pair + j), 0, sum[i][j][0]);
        P::store_tile(out + vectors<P>(pair + j), 1, sum[i][j][1]);
        if (layer + 1 == a.layers) continue;
        float gate[4];
        gate_tile<P>(sum[i][j], gate);
        put(layer + 1, at, pair + j, {{gate[0], gate[1]}, {gate[2], gate[3]}});
      }
    }
  }

  // Computes the contribution of a layer's pre-activations to the horizontal stack: both halves of
  // 8·Pairs features.
  template <int Tiles, int Pairs>
  PRSR_DEVICE void link(int layer, int tile, int pair) const {
    const int group = 16 * a.group_steps, pairs = a.channels * 2 * a.group_steps;
    const int own_steps = 2 * a.feature_steps;
    const int64_t steps = own_steps + a.condition_steps;
    const int outputs = pairs * 16;
    // Pairs of one colour are adjacent: their number is even, and so is `pair` if two are computed.
    const int colour = pair / (2 * a.group_steps), within = pair % (2 * a.group_steps);
    const int first = colour * 2 * group + 8 * within;
    float sum[Tiles][Pairs][2][4];
    begin(sum, a.link_bias + layer * outputs + first, group);
    const uint4* weights =
        a.link + vectors<P>((static_cast<int64_t>(layer) * pairs + pair) * steps) + lane;
    const uint4* inputs[Tiles];
    const Element* conditions[Tiles][2];
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      const int last = positions.tiles() - 1;
      inputs[i] = preactivations(layer, tile + i < last ? tile + i : last);
      const Pair at(positions, tile + i, lane_position.row);
#pragma unroll
      for (int h = 0; h < 2; ++h) conditions[i][h] = condition(at.image[h], at.column[h]);
    }
#pragma unroll(2 / P::kVectors)
    for (int s = 0; s < own_steps; ++s) {
      typename P::Inputs own[Tiles];
#pragma unroll
      for (int i = 0; i < Tiles; ++i) own[i] = P::load(inputs[i] + vectors<P>(s));
      multiply<Tiles, Pairs>(sum, own, weights, vectors<P>(steps));
    }
    accumulate(sum, conditions, 0, a.condition_steps, weights, vectors<P>(steps));
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      const Pair at(positions, tile + i, lane_position.row);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (!at.live[h]) continue;
        const int64_t pixel = at.image[h] * a.width + at.column[h];
        float* out = a.above + (pixel * a.layers + layer) * outputs + first + lane_position.column;
#pragma unroll
        for (int j = 0; j < Pairs; ++j) {
          *reinterpret_cast<float2*>(out + 8 * j) = {sum[i][j][0][2 * h], sum[i][j][0][2 * h + 1]};
          *reinterpret_cast<float2*>(out + 8 * j + group) = {sum[i][j][1][2 * h],
                                                             sum[i][j][1][2 * h + 1]};
        }
      }
    }
  }
};

// The work of one block: in each layer, its warps divide tiles of positions and pairs of tiles of
// outputs.
template <typename P, int Tiles, int Pairs>
PRSR_DEVICE void vertical_row(const VerticalRow& a) {
  const Vertical<P> stack(a);
  const int tiles = stack.positions.tiles(), sets = (tiles + Tiles - 1) / Tiles;
  const int warp = device::warp();
  const int features = 2 * a.feature_steps;  // number of tiles of 8
  for (int i = warp; i < tiles * features; i += kWarps) stack.first(i / features, i % features);
  // Orders the writes of layer 0's row before gates() reads neighbouring columns.
  device::block_barrier();
  const int gates = features / Pairs, links = a.channels * 2 * a.group_steps / Pairs;
  for (int layer = 0; layer <= a.layers; ++layer) {
    const int own = layer < a.layers ? sets * gates : 0;
    const int all = own + (layer > 0 ? sets * links : 0);
    for (int i = warp; i < all; i += kWarps) {
      if (i < own) {
        stack.template gates<Tiles, Pairs>(layer, i / gates * Tiles, i % gates * Pairs);
      } else {
        const int j = i - own;
        stack.template link<Tiles, Pairs>(layer - 1, j / links * Tiles, j % links * Pairs);
      }
    }
    // Orders the writes of the next layer's row and of this layer's pre-activations before the
    // reads in the next round. The next layer but one overwrites these pre-activations, after the
    // next barrier, when link() has read them.
    if (layer < a.layers) device::block_barrier();
  }
}

}  // namespace prsr
