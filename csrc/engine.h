// What the engine is given: numbers and pointers, checked by the caller, and nothing else.
// Letters as in prsr.PRSRConfig; features and units in the order of their colour groups, so that a
// group is a range and group g reads the features before its end (prsr/engines/packing.py).
//
// csrc/row.cpp and loops.cpp are compiled once for each instruction set. What it shares with the
// rest, all that is declared here, has no inline functions: the linker would keep one copy for all
// sets.
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
  int64_t gate_inputs;  // F, 0 without conditional gates
  bool half_head;       // whether the head's weights are bfloat16
};

// The caches, zero before the first row, and the job: N images in bundles of `bundle` (b), 1 or
// kBundle. A bundle has the numbers of its images side by side, so that they are a vector.
// Bundles lie apart: where those of two threads alternate, one core's prefetches take lines from
// the other that it is about to write.
struct Job {
  int64_t bundles, bundle, height, width;
  float* values;    // [N/b, p0 + H, p0 + W + p0, D, b]: the images as the network sees them
  float* vertical;  // [N/b, L, p + 1, p + W + p, C, b]: input of each block; y is at y % (p + 1)
  float* above;     // [N/b, W, L, 2C, b]: what the vertical stack adds to the horizontal one
  float* ahead;     // [N, (L, W, 2C) and 1]: of the vertical stack's next row, what the rows so
                    // far give; then which row that is, counted from 1. None where b is not 1
  float*
      horizontal;  // [N/b, p + W, L + 1, C, b]: input of each block, and of the head, on this row
  const float* conditioning;  // logits, [N, H, W, D, K]
  const float* features;      // of the conditioning network, [N/b, H, W, F, b]
  const float* noise;         // [N, H, W, D]
  const float* temperature;   // [N]
  const uint8_t* mask;        // [N, D, H, W], 1 where known; or null
  uint8_t* image;             // [N, D, H, W]
  double* seconds;            // of the whole job, by parts, to add to: [kParts]; or null
};

// Of images: a register of AVX2, two of SSE and NEON. Wider ones would leave a thread more often
// with images too few for one.
constexpr int64_t kBundle = 8;

// What a row's time goes into, as far as the thread sees it that leads.
enum Part { kVertical, kHorizontal, kHead, kDraw, kParts };

// Weights as product.h reads them, and a bias.
struct Layer {
  const float* weights;
  const float* bias;
};

// What a block computes for all groups at once.
struct Block {
  Layer vertical, link;  // both read the conditioning network's features before their other inputs
  const float* taps;     // of the pixels to the left; its bias is the link's
};

// What is left of a block for one group.
struct Step {
  const float* centre;
  Layer mix;
};

// What one colour of a pixel takes from the first layer to its logits.
struct Group {
  const float* first_own;
  std::vector<Step> steps;  // of each block
  Layer head, output;
};

// Where each matrix and bias lies: one behind the other in the order of their use, first those of a
// row, then those of a pixel, so that what comes next in memory is what is wanted next.
struct Network {
  // `offsets`: where each begins in `weights`, in the order in which this constructor reads them
  // and prsr/engines/layout.py lays them out.
  Network(const Config& config, const float* weights, const int64_t* offsets);

  Layer first_vertical, first_left;
  std::vector<Block> blocks;
  std::vector<Group> groups;
};

// Working memory of one team, for `bundles` at a time, aligned to lines of 64 bytes.
// `logits` and `claims` are there for two sub-pixels in turn: while one is drawn, others of the
// team begin the next.
class Scratch {
 public:
  Scratch(const Config& config, int64_t width, int64_t bundles, int64_t bundle);

  int64_t bundles;
  int64_t chain_stride, logits_stride, logits_size;
  float* preactivations;  // of the vertical stack, one bundle's row: [W][2C][b]
  float* given;           // of a pixel, without what it adds itself: [L][bundles][2C][b]
  float* chain;           // of one group in one block: [bundles][2·C_g][b]
  float* gated;           // [L][bundles][C][b]
  float* hidden;          // [bundles][M][b]
  float* mixed;           // logits where b is not 1: [bundles][K][b]
  float* logits;          // [2][bundles][b][K, then its sums by 16]
  int32_t* alive;         // of one image's hidden units those above zero, in order: [M]
  int64_t* alive_end;     // how many, up to and with each group: [D]
  Claims* claims;         // on the blocks of a sub-pixel's logits: [2]

 private:
  struct Deleter {
    void operator()(float* memory) const;
  };
  std::unique_ptr<float, Deleter> memory_;
  std::vector<int32_t> alive_;
  std::vector<int64_t> alive_end_;
  std::vector<Claims> claims_;
};

// Draws row y of the bundles `first` … `first + count − 1`; every member of the team calls it.
using DrawRow = void (*)(const Config&, const Network&, const Job&, const Scratch&, Team&,
                         int64_t member, int64_t y, int64_t first, int64_t count);

// What an instruction set has of its own: the code, and how many outputs the strips of weights have
// that it likes best, in the vertical stack and for a pixel (csrc/bundle.h).
struct Kernel {
  DrawRow draw_row;
  int64_t row_strip, pixel_strip;
};
extern const Kernel kernel_baseline, kernel_avx2, kernel_avx512;

}  // namespace prsr
