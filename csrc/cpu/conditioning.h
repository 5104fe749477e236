// The conditioning network: its inputs, and how the work is divided among threads. As in
// operands.h, letters are those of prsr.PRSRConfig, and the caller has checked everything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "operands.h"

namespace prsr {

struct ConditioningConfig {
  int64_t channels;   // D
  int64_t levels;     // K
  int64_t features;   // channels of every layer but the last
  int64_t blocks;     // B
  int64_t doublings;  // log2 of the scale
};

// N images of h×w pixels, which become H×W.
struct ConditioningJob {
  int64_t images, height, width;
  int64_t steps;       // number of blocks and doublings to compute; logits only after all of them
  float limit;         // on the magnitude of the features after the last step
  const uint8_t* low;  // [N, D, h, w]
  float* features;     // after the last step, [N, height, width, features]; or null
  float* logits;       // [N, H, W, D, K]; or null
};

// Weights as gemm.h reads them. Batch normalisation is folded into them.
struct ConditioningNetwork {
  struct Block {
    Layer first, second;  // 3×3
  };
  // A transposed 3×3 convolution of stride 2. Output pixel (2y + py, 2x + px) reads (1 + py)·(1 +
  // px) pixels from (y, x) on, so the layer is four small convolutions.
  struct Doubling {
    const float* phases[2][2];
    const float* bias;
  };

  // `offsets`: where each matrix and bias begins in `weights`, in the order in which this
  // constructor reads them and prsr/engines/cpu_conditioning.py writes them.
  ConditioningNetwork(const ConditioningConfig& config, const float* weights,
                      const int64_t* offsets);

  Layer first;                             // 1×1
  std::vector<std::vector<Block>> stages;  // blocks at each resolution
  std::vector<Doubling> doublings;         // between the resolutions
  Layer last;                              // 1×1
};

// The activations of one image, [height, width, features], with a border of zeros one pixel wide.
class Plane {
 public:
  Plane(int64_t height, int64_t width, int64_t features);
  int64_t height, width;
  int64_t row;  // distance in floats between rows
  float* at(int64_t y, int64_t x);

 private:
  int64_t features_;
  std::vector<float> memory_;
};

// Working memory of one team. A team of several members computes one image.
struct ConditioningScratch {
  ConditioningScratch(const ConditioningConfig& config, const ConditioningJob& job);

  std::vector<float> values;  // the image as the network sees it, [h, w, D]
  struct Pair {
    Plane x, between;  // input and result of a block; the activations between its convolutions
  };
  std::vector<Pair> planes;          // one per resolution
  int64_t last_meeting = INT64_MAX;  // after this barrier the first member goes on alone
};

// Computes one image. Every member of the team calls it. Returns whether the features that this
// member has computed are within the job's limit.
using Condition = bool (*)(const ConditioningConfig&, const ConditioningNetwork&,
                           const ConditioningJob&, ConditioningScratch&, Team&, int64_t member,
                           int64_t image);
extern const Condition condition_baseline, condition_avx2, condition_avx512, condition_avx512bf16;

// Computes all images with up to `threads` threads; the result is bit-identical for any number.
// Returns whether all features are within the job's limit. Throws std::bad_alloc if working memory
// cannot be allocated.
bool condition_images(Condition kernel, const ConditioningConfig& config,
                      const ConditioningNetwork& network, const ConditioningJob& job,
                      int64_t threads);

}  // namespace prsr
