// Inputs and working memory of the prior's kernels. The caller has checked all sizes and pointers.
//
// Letters are those of prsr.PRSRConfig. Features and hidden units are sorted by colour group, so a
// group is a contiguous range, and group g reads all features up to the end of its own range
// (prsr/engines/grouped_weights.py).
//
// row_kernel.cpp and csrc/bench/loops.cpp are compiled once per instruction set. Declarations that
// they share with other files must not be inline functions: the linker would keep one copy for all
// instruction sets.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "team.h"

namespace prsr {

struct PriorConfig {
  int64_t channels;     // D
  int64_t levels;       // K
  int64_t features;     // C
  int64_t layers;       // L
  int64_t reach;        // p
  int64_t first_reach;  // p0
  int64_t units;        // M
  int64_t gate_inputs;  // F, 0 without conditional gates
  bool bf16;            // whether all products but the first layers' take bfloat16 (pairs.h)
};

// Weights as gemm.h reads them, and a bias. In bf16, the weights of all but the first layers are
// pairs.
struct Layer {
  const float* weights;
  const float* bias;
};

// The last layer of the conditioning network, 1×1, in float32.
struct LastLayer {
  int64_t inputs;         // I, features per pixel
  const float* features;  // [N, H, W, I]
  Layer layer;            // to the logits of a pixel, [D, K]
};

// The caches, zero before the first row, and the images to draw: N images in bundles of b =
// `bundle` images, 1 or kBundle. In a bundle, corresponding values of its images are adjacent and
// form a vector. In bf16, the arrays marked * hold pairs of bfloat16 (pairs.h) instead of floats: C
// and F then count pairs, and so does `horizontal`, where each colour group begins a new pair.
//
// The bundles of one thread are contiguous: if two threads alternated, the hardware
// prefetcher of one core would fetch lines that the other is about to write.
struct Job {
  int64_t bundles, bundle, height, width;
  float* values;   // [N/b, p0 + H, p0 + W + p0, D, b]: the images as the network sees them
  void* vertical;  // * [N/b, L, p + 1, p + W + p, C, b]: input of each block; row y is in slot
                   // y % (p + 1)
  float* above;    // [N/b, W, L, 2C, b]: contribution of the vertical stack to the horizontal stack
  float* ahead;    // [N, (L, W, 2C) and 1]: partial sums of the vertical stack's next row, over the
                   // rows drawn so far; then the number of that row, counted from 1. Empty unless b
                   // is 1
  void* horizontal;           // * [N/b, p + W, L + 1, C, b]: input of each block and the head
  const float* conditioning;  // logits, [N, H, W, D, K]; or null: then `last` computes them, so
                              // that only the rows being drawn are in memory
  LastLayer last;
  const void* features;      // * conditioning features, [N/b, H, W, F, b]
  const float* noise;        // [N, H, W, D]
  const float* temperature;  // [N]
  const uint8_t* mask;       // [N, D, H, W], 1 where known; or null
  uint8_t* image;            // [N, D, H, W]
  double* seconds;           // seconds spent in each part, to add to: [kParts]; or null
};

// Images of a bundle: one register of AVX2, two of SSE or NEON. A larger bundle would more often
// leave a thread with too few images to fill one.
constexpr int64_t kBundle = 8;

// Parts of a row whose time the leading thread measures.
enum Part { kVertical, kHorizontal, kHead, kDraw, kParts };

// The part of a block that is computed for all groups at once.
struct Block {
  Layer vertical, link;  // both read the conditioning features before their other inputs
  const float* taps;     // pixels to the left; the bias is that of `link`
};

// The part of a block that is computed group by group.
struct Step {
  const float* centre;
  Layer mix;
};

// The layers of one colour group, from the first layer to the logits.
struct Group {
  const float* first_own;
  std::vector<Step> steps;  // one per block
  Layer head, output;
};

// Addresses of all matrices and biases. They are stored in the order of their use, first those of a
// row, then those of a pixel, so that the hardware prefetcher reads ahead usefully.
struct Network {
  // `offsets`: where each begins in `weights`, in the order in which this constructor reads them
  // and prsr/engines/cpu_layout.py writes them.
  Network(const PriorConfig& config, const float* weights, const int64_t* offsets);

  Layer first_vertical, first_left;
  std::vector<Block> blocks;
  std::vector<Group> groups;
};

// Working memory of one team for `bundles` bundles at a time, aligned to cache lines of 64 bytes.
// `logits` and `claims` are double buffered: while the leader draws one sub-pixel, helpers begin
// the next.
class Scratch {
 public:
  Scratch(const PriorConfig& config, const Job& job, int64_t bundles);

  int64_t bundles;
  int64_t chain_stride, logits_stride, logits_size;
  float* preactivations;  // vertical stack, one bundle's row: [W][2C][b]
  float* given;  // pre-activations of a pixel except for the contribution of its own features, some
                 // of which single_image_chain.h adds:
                 // [L][bundles][2C][b]
  float* chain;  // one group in one block: [bundles][2·C_g][b]
  float* mix_sums;  // the mixes as far as earlier colours contribute, for a single image: [L][C]
  float* gated;     // [L][bundles][C][b], as operands
  float* hidden;    // [bundles][M][b], as operands
  float* mixed;     // logits, if b is not 1: [bundles][K][b]
  // In bf16 only: float32 values, before they are rounded to operands, and the operands of the
  // links.
  float* own;  // features of a pixel in the layer that the chain has reached: [bundles][C][b]
  float* own_hidden;    // [bundles][M][b]
  float* linked;        // pre-activations of the vertical stack, as operands: [W][C][b]
  float* logits;        // [2][bundles][b][K, then its sums by 16]
  float* conditioning;  // conditioning logits of a row, if they are computed here:
                        // [bundles][b][W][D][K]
  int32_t* active;      // indices of the hidden units that are nonzero in any image, ascending: [M]
  int64_t* active_end;  // number of these hidden units up to and including each group: [D]
  Claims* claims;       // the blocks of the logits of two successive sub-pixels: [2]

 private:
  struct Deleter {
    void operator()(float* memory) const;
  };
  std::unique_ptr<float, Deleter> memory_;
  std::vector<int32_t> active_;
  std::vector<int64_t> active_end_;
  std::vector<Claims> claims_;
};

// Draws row y of the bundles `first` … `first + count − 1`. Every member of the team calls it.
using DrawRow = void (*)(const PriorConfig&, const Network&, const Job&, const Scratch&, Team&,
                         int64_t member, int64_t y, int64_t first, int64_t count);

// The kernel of one instruction set, and the widths in outputs of the weight strips that it reads,
// in the vertical stack and at a pixel (bundle_gemm.h). `tiles`: whether tiles compute large
// products in bf16, with weights in the order of tile_gemm.h for bundles.
struct Kernel {
  DrawRow draw_row;
  int64_t row_strip, pixel_strip;
  bool tiles;
};
extern const Kernel kernel_baseline, kernel_avx2, kernel_avx512, kernel_avx512bf16, kernel_amx,
    kernel_amx_emulated;

}  // namespace prsr
