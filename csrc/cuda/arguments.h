// What the kernels are given: sizes, and addresses on the device. Python has checked them all
// (prsr/engines/cuda.py), where the shapes stand as well.
//
// Letters as in prsr.PRSRConfig. Features and units are in the order of their colour groups. In the
// horizontal stack and the head each group is padded with zeros to whole steps of 16: S of
// features, U of units; P counts the pairs of tiles, 16 levels each, of a colour's logits. A uint4
// array's shape leaves out its last dimensions, [kVectors, 32] for a step (operands.h).
#pragma once

#include <cstdint>

struct uint4;

namespace prsr {

// The vertical stack of one row of all images, and what it gives the horizontal stack.
struct VerticalRow {
  int images, height, width, y;
  int channels, layers, reach, first_reach;
  int feature_steps;     // of the C features, a padded to steps of 16: E
  int condition_steps;   // of the F features that conditional gates read; 0 without them
  int group_steps;       // S
  int images_per_block;  // B

  const float* first;       // [p0, (2·p0 + 1)·D, 16·E]
  const float* first_bias;  // [16·E]
  const uint4* gates;       // [L, 2·E pairs of both halves, (p + 1)·(2p + 1)·E + F/16]
  const float* gate_bias;   // [L, 2, 16·E]
  const uint4* link;        // [L, D·2·S pairs of both halves, 2·E + F/16]
  const float* link_bias;   // [L, D, 2, 16·S]

  const float* values;    // [N, p0 + H, p0 + W + p0, D]: images as the network sees them
  void* cache;            // Element [N, L, p + 1, p + W + p, 16·E]: each layer's input, row y in
                          // slot y % (p + 1)
  const void* condition;  // Element [N, H, W, F]: the conditioning network's features
  uint4* preactivations;  // [blocks, 2, tiles of B·W positions, 2·E]: of the even and odd layers
  float* above;           // [N, W, L, D, 2, 16·S]
};

// What a sub-pixel's time goes into, as far as a block's first thread sees it that leads a tile.
enum Phase { kChain, kHead, kLate, kLogits, kDraw, kPhases };

// The horizontal stack, the head and the draws of one row of all images.
struct HorizontalRow {
  int images, height, width, y;
  int channels, levels, layers, reach, first_reach;
  int group_steps;  // S
  int unit_steps;   // U
  int level_pairs;  // P
  int tiles;        // of a cluster: block r of it leads tile r; no more than it has blocks
  // Bytes from the start of shared memory, or -1 where they are in global memory.
  int given_offset, chain_offset;

  const float* first;        // [D, (p0 + 1)·D, 16·S]: the pixels to the left, then the own one
  const float* first_bias;   // [D, 16·S]
  const uint4* gates;        // [L, D, 2·S pairs of both halves, (p + 1)·D·S]: likewise
  const uint4* mix;          // [L, D, S pairs, D·S]
  const float* mix_bias;     // [L, D, 16·S]
  const uint4* chain;        // [L, D, 2·S·S and S·S]: of both, a colour's own inputs
  const uint4* hidden;       // [D, U pairs, D·S]
  const float* hidden_bias;  // [D, 16·U]
  const uint4* output;       // [D, P pairs, D·U]
  const float* output_bias;  // [D, 16·P]

  float* values;       // as above, 16 images for each tile
  const float* above;  // as above, 16 images for each tile
  uint4* kept;         // [tiles, L + 1, p + W, D·S]: each layer's input, and the head's
  uint4* gated;        // [tiles, L, D·S]: outputs of the gates at the pixel
  float* given;     // [tiles, 2, L, 6·S, 32, 4]: sums that wait for a colour's own features, of the
                    // even and odd sub-pixels of a row
  float* residual;  // [tiles, 2, 2·S, 32, 4]: a colour's own features in fp32, likewise
  uint4* units;     // [blocks, tiles of a cluster, D·U]: hidden units of the pixel
  const float* conditioning;  // logits, [N, H, W, D, K]
  const float* noise;         // [N, H, W, D]
  const float* temperature;   // [N]
  const uint8_t* known;       // bool [N, D, H, W], or null if no sub-pixel is known
  uint8_t* image;             // [N, D, H, W]
  int64_t* clocks;            // [kPhases] to add to, by block 0; or null
};

}  // namespace prsr
