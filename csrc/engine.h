// What the engine is given: numbers and pointers, checked by the caller, and nothing else.
// Letters as in prsr.PRSRConfig; features and units in the order of their colour groups, so that a
// group is a range and group g reads the features before its end (prsr/engines/packing.py).
//
// csrc/row.cpp is compiled once for each instruction set. What it shares with the rest, all that
// is declared here, has no inline functions: the linker would keep one copy for all sets.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "team.h"

namespace prsr {

struct Config {
  int64_t channels;     // D
  int64_t levels;       // K
  int64_t features;     // C
  int64_t layers;       // L
  int64_t reach;        // p
  int64_t first_reach;  // p0
  int64_t units;        // M
};

// The caches of `images` pictures, one after the other, zero before the first row, and the job.
struct Job {
  int64_t images, height, width;
  float* values;      // [p0 + H, p0 + W + p0, D]: the picture as the network sees it
  float* vertical;    // [L, p + 1, p + W + p, C]: input of each block; row y is at y % (p + 1)
  float* above;       // [L, W, 2C]: what the vertical stack adds to the horizontal one
  float* horizontal;  // [L + 1, p + W, C]: input of each block, and of the head, on this row
  const float* conditioning;  // logits [K, D, H, W]
  const float* noise;         // [H, W, D]
  const float* temperature;   // [1]
  const uint8_t* mask;        // [D, H, W], 1 where known; or null
  uint8_t* picture;           // [D, H, W]
};

// Weights as product.h reads them, and a bias.
struct Layer {
  const float* weights;
  const float* bias;
};

struct Block {
  Layer vertical, link;
  const float* taps;           // of the pixels to the left; its bias is the link's
  const float* const* centre;  // of each group
  const Layer* mix;            // of each group
};

// Where each matrix and bias lies.
class Network {
 public:
  // `offsets`: where each begins in `weights`, in the order in which this constructor reads them
  // and prsr/engines/native.py lays them out.
  Network(const Config& config, const float* weights, const int64_t* offsets);

  Layer first_vertical, first_left;
  const float* const* first_own;  // of each group
  const Block* blocks;
  const Layer* head;    // of each group
  const Layer* output;  // of each colour

 private:
  std::vector<Block> blocks_;
  std::vector<const float*> matrices_;
  std::vector<Layer> layers_;
};

// Working memory of one team, for `images` pictures at a time, aligned to lines of 64 bytes.
class Scratch {
 public:
  Scratch(const Config& config, int64_t width, int64_t images);

  int64_t images;
  int64_t chain_stride, logits_stride;
  float* conditioning;    // logits of this row, levels side by side: [images][W][D][K]
  float* preactivations;  // of the vertical stack, one picture's row: [W][2C]
  float* given;           // of a pixel, without what it adds itself: [L][images][2C]
  float* chain;           // of one group in one block: [images][2·C_g]
  float* gated;           // [L][images][C]
  float* hidden;          // [images][M]
  float* logits;          // of two sub-pixels in turn: [2][images][K, then its sums by 16]
  int32_t* alive;         // of one picture's hidden units those above zero, in order: [M]
  int64_t* alive_end;     // how many, up to and with each group: [D]

 private:
  struct Deleter {
    void operator()(float* memory) const;
  };
  std::unique_ptr<float, Deleter> memory_;
  std::vector<int32_t> alive_;
  std::vector<int64_t> alive_end_;
};

// Draws row y of the images `first` … `first + count − 1`; every member of the team calls it.
using DrawRow = void (*)(const Config&, const Network&, const Job&, const Scratch&, Team&,
                         int64_t member, int64_t y, int64_t first, int64_t count);

#define PRSR_DECLARE(name)                                                                    \
  void name(const Config&, const Network&, const Job&, const Scratch&, Team&, int64_t member, \
            int64_t y, int64_t first, int64_t count)
PRSR_DECLARE(draw_row_baseline);
PRSR_DECLARE(draw_row_avx2);
PRSR_DECLARE(draw_row_avx512);
#undef PRSR_DECLARE

}  // namespace prsr
