// Arguments of the kernels: sizes, and addresses on the device. Python has checked them
// (prsr/engines/cuda.py), which also has the shapes.
//
// Letters as in prsr.PRSRConfig. Features and hidden units are sorted by colour group. In the
// horizontal stack and the head, each group is padded with zeros to whole steps of 16: S steps of
// features, U steps of units. P is the number of pairs of tiles, 16 levels each, of a colour's
// logits. The shape of a uint4 array omits its last dimensions, [kVectors, 32] for each step
// (mma.h).
#pragma once

#include <cstdint>

struct uint4;

namespace prsr {

// The vertical stack of one row of all images, and its contribution to the horizontal stack.
struct VerticalRow {
  int images, height, width, y;
  int channels, layers, reach, first_reach;
  int feature_steps;     // steps of the C features: E
  int condition_steps;   // steps of the F conditioning features; 0 without conditional gates
  int group_steps;       // S
  int images_per_block;  // B

  const float* first;       // [p0, (2·p0 + 1)·D, 16·E]
  const float* first_bias;  // [16·E]
  const uint4* gates;       // [L, 2·E pairs of both halves, (p + 1)·(2p + 1)·E + F/16]
  const float* gate_bias;   // [L, 2, 16·E]
  const uint4* link;        // [L, D·2·S pairs of both halves, 2·E + F/16]
  const float* link_bias;   // [L, D, 2, 16·S]

  const float* values;  // [N, p0 + H, p0 + W + p0, D]: images as the network sees them
  void* cache;  // Element [N, L, p + 1, p + W + p, 16·E]: input of each layer; row y is in slot y %
                // (p + 1)
  const void* condition;  // Element [N, H, W, F]: conditioning features
  uint4* preactivations;  // [blocks, 2, tiles of B·W positions, 2·E]: even and odd layers
  float* above;           // [N, W, L, D, 2, 16·S]
};

// Phases of a sub-pixel, timed by the first thread of a block that leads a tile. In kSums its warp
// has ended the chain and waits for the sums of the next sub-pixel, by the other warps.
enum Phase { kChain, kSums, kHead, kLate, kLogits, kDraw, kPhases };

// The horizontal stack, the head and the draws of one row of all images.
struct HorizontalRow {
  int images, height, width, y;
  int channels, levels, layers, reach, first_reach;
  int group_steps;  // S
  int unit_steps;   // U
  int level_pairs;  // P
  int tiles;        // tiles per cluster, at most its number of blocks; block r leads tile r
  int look_ahead;   // whether the chain looks ahead (look_ahead.h)
  // Offsets in bytes in shared memory, or -1 for arrays that are read from global memory: `given`
  // and `chain` in blocks that lead a tile, `hidden` in the others.
  int given_offset, chain_offset, hidden_offset;
  // In all blocks, `output` of the colours from this one on, and its offset.
  int output_colour, output_offset;

  const float* first;       // [D, (p0 + 1)·D, 16·S]: pixels to the left, then the pixel itself
  const float* first_bias;  // [D, 16·S]
  const uint4* gates;       // [L, D, 2·S pairs of both halves, (p + 1)·D·S]: in the same order
  const uint4* mix;         // [L, D, S pairs, D·S]
  const float* mix_bias;    // [L, D, 16·S]
  // The parts of both that read a colour's own features, [L, D, 2·S·S and S·S]. With look-ahead
  // [L, D, 2·S·S, 2·S·S and S·S]: between them, the mix of the layer below times the gates.
  const uint4* chain;
  const uint4* hidden;       // [D, U pairs, D·S]
  const float* hidden_bias;  // [D, 16·U]
  const uint4* output;       // [D, P pairs, D·U]
  const float* output_bias;  // [D, 16·P]

  float* values;       // as in VerticalRow, 16 images per tile
  const float* above;  // as in VerticalRow, 16 images per tile
  uint4* kept;         // [tiles, L + 1, p + W, D·S]: input of each layer and of the head
  uint4* gated;        // [tiles, L, D·S]: gate outputs at the pixel
  float* given;     // [tiles, 2, L, 6·S, 32, 4]: sums without a colour's own features, for the even
                    // and odd sub-pixels of a row
  float* residual;  // [tiles, 2, 2·S, 32, 4]: a colour's own features in fp32, for the even
                    // and odd sub-pixels of a row
  uint4* units;     // [blocks, tiles of a cluster, D·U]: hidden units of the pixel
  const float* conditioning;  // logits, [N, H, W, D, K]
  const float* noise;         // [N, H, W, D]
  const float* temperature;   // [N]
  const uint8_t* known;       // bool [N, D, H, W], or null if no sub-pixel is known
  uint8_t* image;             // [N, D, H, W]
  int64_t* clocks;            // [kPhases], to which block 0 adds; or null
};

}  // namespace prsr
