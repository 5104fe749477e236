// Addresses and sizes of one block of the horizontal kernel, in shared and global memory.
//
// A tile is 16 images, the rows of a product. A cluster of X blocks serves T ≤ X tiles: block r < T
// leads tile r, and the levels of a colour are divided among all blocks. n counts the sub-pixels of
// a row from 0.
#pragma once

#include "arguments.h"
#include "mma.h"

namespace prsr {

constexpr int kPairsAtOnce = 2;  // pairs of level tiles that a block accumulates at a time
constexpr int kLevelTile = 33;   // stride of tiles of 8 logits in float4; avoids bank conflicts
constexpr int kNarrow = 2;       // steps of a colour's features that fit one warp's registers

// Level pairs per block; the last block with levels may have fewer.
PRSR_BOTH int share_of(int level_pairs, int ranks) { return (level_pairs + ranks - 1) / ranks; }

// Steps of the chain's weights of one layer and colour.
PRSR_BOTH int chain_steps(int group_steps, bool look_ahead) {
  return (look_ahead ? 5 : 3) * group_steps * group_steps;
}

// The number of pairs of a colour and one that it reads, itself included, for the colours before
// `colours`: 0, 1, 3, 6, …
PRSR_BOTH int head_steps(int colours) { return colours * (colours + 1) / 2; }

// Offsets in shared memory, also for the host. plan_shared_memory() appends to its end.
struct SharedLayout {
  int barriers, features, partial, logits, start, draws, end;
  int feature_bytes;  // bytes of a tile's features of all colours
  int partial_pairs;  // level pairs at a time

  PRSR_BOTH static SharedLayout of(int channels, int group_steps, int level_pairs, int tiles,
                                   int vectors, int ranks) {
    SharedLayout s{};
    const int share = share_of(level_pairs, ranks);
    s.partial_pairs = share < kPairsAtOnce ? share : kPairsAtOnce;
    s.feature_bytes = channels * group_steps * vectors * 512;
    s.barriers = 0;  // one for the logits, and one for each tile's features
    s.features = 128 * ((8 * (1 + tiles) + 127) / 128);
    s.partial = s.features + (ranks > 1 ? tiles * s.feature_bytes : 0);
    s.logits = s.partial + 2 * kWarps * s.partial_pairs * 2 * 512;
    s.start = s.logits + level_pairs * 2 * kLevelTile * 16;
    s.draws = s.start + kImages * level_pairs * 16 * 4;
    s.end = s.draws + 4 * 128 + 2 * kNarrow * 16 * 4;
    return s;
  }
};

template <typename P>
struct RowContext {
  const HorizontalRow& a;
  unsigned char* const memory;
  const SharedLayout at;
  const int lane, warp, thread;
  const LanePosition lane_position;
  const int rank, ranks;
  const bool sends;         // whether the cluster has several blocks
  const int cluster;        // index of the cluster
  const int cluster_tiles;  // tiles of the cluster that have an image
  const int64_t tile;       // the tile that this block leads, if any
  const bool leads;
  const int first_pair, pairs;  // level pairs of this block
  const int owners;             // blocks with levels: those with the lowest ranks

  PRSR_DEVICE RowContext(const HorizontalRow& arguments, unsigned char* shared)
      : a(arguments),
        memory(shared),
        at(SharedLayout::of(a.channels, a.group_steps, a.level_pairs, a.tiles, P::kVectors,
                            device::ranks())),
        lane(device::lane()),
        warp(device::warp()),
        thread(device::thread()),
        lane_position(LanePosition::of(lane)),
        rank(device::rank()),
        ranks(device::ranks()),
        sends(device::kClusters && ranks > 1),
        cluster(device::block() / ranks),
        cluster_tiles(tiles_of(a, cluster)),
        tile(static_cast<int64_t>(cluster) * a.tiles + rank),
        leads(rank < cluster_tiles),
        first_pair(rank * share_of(a.level_pairs, ranks)),
        pairs(pairs_from(a.level_pairs, first_pair, share_of(a.level_pairs, ranks))),
        owners(share_of(a.level_pairs, share_of(a.level_pairs, ranks))) {}

  PRSR_DEVICE static int pairs_from(int all, int first, int most) {
    const int left = all - first;
    return left < 0 ? 0 : left < most ? left : most;
  }
  PRSR_DEVICE static int tiles_of(const HorizontalRow& a, int cluster) {
    const int left = (a.images + kImages - 1) / kImages - cluster * a.tiles;
    return left < a.tiles ? left : a.tiles;
  }

  // Shared memory. Pointers to data of one lane point to its own 16 bytes.

  PRSR_DEVICE device::Barrier* logits_arrived() const {
    return reinterpret_cast<device::Barrier*>(memory + at.barriers);
  }
  PRSR_DEVICE device::Barrier* features_arrived(int of_tile) const {
    return logits_arrived() + 1 + of_tile;
  }
  PRSR_DEVICE uint4* received(int of_tile) const {
    return reinterpret_cast<uint4*>(memory + at.features + of_tile * at.feature_bytes) + lane;
  }
  // A warp's partial sums of a level pair, in one of two alternating buffers.
  PRSR_DEVICE float4* partial(int half, int of_warp, int pair) const {
    float4* const first = reinterpret_cast<float4*>(memory + at.partial);
    return first + ((half * kWarps + of_warp) * at.partial_pairs + pair) * 64;
  }
  PRSR_DEVICE float4* logits(int level_tile) const {
    return reinterpret_cast<float4*>(memory + at.logits) + level_tile * kLevelTile;
  }
  // Initial logits: the bias plus the conditioning network's logits, [16, 16·P].
  PRSR_DEVICE float* start() const { return reinterpret_cast<float*>(memory + at.start); }
  // Per image: noise, temperature, the known level or -1, and the last value drawn.
  PRSR_DEVICE float* noise() const { return reinterpret_cast<float*>(memory + at.draws); }
  PRSR_DEVICE float* temperature() const { return noise() + 32; }
  PRSR_DEVICE int* known() const { return reinterpret_cast<int*>(temperature() + 32); }
  PRSR_DEVICE float* drawn() const { return temperature() + 64; }
  // The first layer's weights for the last value drawn, for an even and an odd n.
  PRSR_DEVICE float* last_weights(int n) const { return drawn() + 32 + n % 2 * 16 * kNarrow; }

  // Sizes.

  PRSR_DEVICE int group() const { return 16 * a.group_steps; }
  PRSR_DEVICE int colour_steps() const { return a.channels * a.group_steps; }
  PRSR_DEVICE bool wide() const { return a.group_steps > kNarrow; }
  PRSR_DEVICE int sub_pixels() const { return a.width * a.channels; }
  PRSR_DEVICE int live_images() const {
    const int64_t left = a.images - tile * kImages;
    return left < kImages ? static_cast<int>(left) : kImages;
  }

  // The chain's weights of a layer, in shared or global memory.
  PRSR_DEVICE const uint4* chain_weights(int colour, int layer) const {
    const uint4* const first =
        a.chain_offset >= 0 ? reinterpret_cast<const uint4*>(memory + a.chain_offset) : a.chain;
    const int64_t number = static_cast<int64_t>(layer) * a.channels + colour;
    return first + vectors<P>(number * chain_steps(a.group_steps, a.look_ahead)) + lane;
  }

  // The head's weights, in shared or global memory. Shared memory has only the steps that are read
  // and the levels of this block.

  PRSR_DEVICE uint4* shared_output(int colour, int pair) const {
    uint4* const first = reinterpret_cast<uint4*>(memory + a.output_offset);
    const int before = head_steps(colour) - head_steps(a.output_colour);
    return first + vectors<P>(a.unit_steps * (before * pairs + pair * (colour + 1)));
  }
  PRSR_DEVICE uint4* shared_hidden(int colour, int step) const {
    uint4* const first = reinterpret_cast<uint4*>(memory + a.hidden_offset);
    const int before = a.unit_steps * head_steps(colour) + step * (colour + 1);
    return first + vectors<P>(before * a.group_steps);
  }
  PRSR_DEVICE bool holds_output(int colour) const { return colour >= a.output_colour; }
  PRSR_DEVICE bool holds_hidden() const { return a.hidden_offset >= 0 && !leads; }
  PRSR_DEVICE const uint4* global_output(int colour, int pair) const {
    const int64_t number = static_cast<int64_t>(colour) * a.level_pairs + first_pair + pair;
    return a.output + vectors<P>(number * a.channels * a.unit_steps);
  }
  PRSR_DEVICE const uint4* global_hidden(int colour, int step) const {
    const int64_t number = static_cast<int64_t>(colour) * a.unit_steps + step;
    return a.hidden + vectors<P>(number * colour_steps());
  }
  // The weights of all units up to those of `colour`, for one of this block's level pairs.
  PRSR_DEVICE const uint4* output_weights(int colour, int pair) const {
    return (holds_output(colour) ? shared_output(colour, pair) : global_output(colour, pair)) +
           lane;
  }
  // The weights of all features up to those of `colour`, for 16 units of it.
  PRSR_DEVICE const uint4* hidden_weights(int colour, int step) const {
    return (holds_hidden() ? shared_hidden(colour, step) : global_hidden(colour, step)) + lane;
  }

  // Global memory.

  // The input of a layer for this block's tile, starting p pixels to the left of x.
  PRSR_DEVICE uint4* kept(int layer, int x) const {
    const int64_t column = (tile * (a.layers + 1) + layer) * (a.reach + a.width) + x;
    return a.kept + vectors<P>(column * colour_steps()) + lane;
  }
  PRSR_DEVICE uint4* gated(int layer) const {
    return a.gated + vectors<P>((tile * a.layers + layer) * colour_steps()) + lane;
  }
  // Partial sums of a sub-pixel: both halves of 8 features, then the mix, one tile each.
  PRSR_DEVICE float4* given(int n, int layer) const {
    float4* const first = a.given_offset >= 0 ? reinterpret_cast<float4*>(memory + a.given_offset)
                                              : reinterpret_cast<float4*>(a.given) +
                                                    tile * 2 * a.layers * 6 * a.group_steps * 32;
    return first + (n % 2 * a.layers + layer) * 6 * a.group_steps * 32 + lane;
  }
  PRSR_DEVICE float4* residual(int n, int feature_tile) const {
    const int64_t number = (tile * 2 + n % 2) * 2 * a.group_steps + feature_tile;
    return reinterpret_cast<float4*>(a.residual) + number * 32 + lane;
  }
  // Hidden units of one of the cluster's tiles, as this block computed them.
  PRSR_DEVICE uint4* units(int of_tile) const {
    const int64_t block = static_cast<int64_t>(device::block()) * a.tiles + of_tile;
    return a.units + vectors<P>(block * a.channels * a.unit_steps) + lane;
  }
  PRSR_DEVICE int64_t image(int of_row) const { return tile * kImages + of_row; }
  PRSR_DEVICE float* value(int of_row, int x) const {
    const int64_t row = image(of_row) * (a.first_reach + a.height) + a.first_reach + a.y;
    return a.values + (row * (a.width + 2 * a.first_reach) + x) * a.channels;
  }
  PRSR_DEVICE int64_t pixel(int of_row, int x) const {
    return (image(of_row) * a.height + a.y) * a.width + x;
  }
  PRSR_DEVICE int64_t image_index(int of_row, int x, int colour) const {
    return ((image(of_row) * a.channels + colour) * a.height + a.y) * a.width + x;
  }
  // A horizontal layer's weights for both halves of 8 features.
  PRSR_DEVICE const uint4* gate_weights(int colour, int layer, int feature_tile) const {
    const int64_t pair =
        (static_cast<int64_t>(layer) * a.channels + colour) * 2 * a.group_steps + feature_tile;
    return a.gates + vectors<P>(pair * (a.reach + 1) * colour_steps()) + lane;
  }
  // A horizontal layer's weights for the mix of 16 features.
  PRSR_DEVICE const uint4* mix_weights(int colour, int layer, int pair) const {
    const int64_t number = static_cast<int64_t>(layer) * a.channels + colour;
    return a.mix + vectors<P>((number * a.group_steps + pair) * colour_steps()) + lane;
  }
};

PRSR_DEVICE void read(const float4* from, float (&x)[4]) {
  const float4 v = *from;
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}
PRSR_DEVICE void write(float4* to, const float (&x)[4]) { *to = {x[0], x[1], x[2], x[3]}; }

// Adds `steps` steps of inputs times the weights of a pair of tiles.
template <typename P>
PRSR_DEVICE void accumulate(float (&sum)[2][4], const uint4* inputs, const uint4* weights,
                            int steps) {
#pragma unroll(4 / P::kVectors)
  for (int s = 0; s < steps; ++s) {
    P::add(sum, P::load(inputs + vectors<P>(s)), P::weights(weights + vectors<P>(s)));
  }
}

// Initialises the sums of a pair of tiles with the bias of 16 outputs.
PRSR_DEVICE void begin_at(float (&sum)[2][4], const float* bias, int column) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 b = *reinterpret_cast<const float2*>(bias + 8 * i + column);
    sum[i][0] = sum[i][2] = b.x;
    sum[i][1] = sum[i][3] = b.y;
  }
}

}  // namespace prsr
