// The conditioning network: what it is given, and how its work is divided. As in engine.h, letters
// are those of prsr.PRSRConfig, and the caller has checked everything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine.h"

namespace prsr {

struct ConditioningConfig {
  int64_t channels;   // D
  int64_t levels;     // K
  int64_t features;   // of every layer but the last
  int64_t blocks;     // B
  int64_t doublings;  // log2 of the scale
};

// N images of h×w pixels, which become H×W.
struct ConditioningJob {
  int64_t images, height, width;
  int64_t steps;       // how many blocks and doublings to compute; logits only after all of them
  const uint8_t* low;  // [N, D, h, w]
  float* features;     // after the last step, [N, height, width, features]; or null
  float* logits;       // [N, H, W, D, K]; or null
};

// Weights as product.h reads them. Batch normalisation is part of them.
struct ConditioningNetwork {
  struct Block {
    Layer first, second;  // 3×3
  };
  // A transposed 3×3 convolution of stride 2. Pixel (2y + py, 2x + px) of its result reads the
  // (1 + py)·(1 + px) pixels from (y, x) on: four small convolutions.
  struct Doubling {
    const float* phases[2][2];
    const float* bias;
  };

  // `offsets`: where each matrix and bias begins in `weights`, in the order in which this
  // constructor reads them and prsr/native_conditioning.py lays them out.
  ConditioningNetwork(const ConditioningConfig& config, const float* weights,
                      const int64_t* offsets);

  Layer first;                             // 1×1
  std::vector<std::vector<Block>> stages;  // the blocks at each resolution
  std::vector<Doubling> doublings;         // between them
  Layer last;                              // 1×1
};

// An image's activations [height, width, features], with a border of zeros one pixel wide.
class Plane {
 public:
  Plane(int64_t height, int64_t width, int64_t features);
  int64_t height, width;
  int64_t row;  // floats from a row to the next one
  float* at(int64_t y, int64_t x);

 private:
  int64_t features_;
  std::vector<float> memory_;
};

// Working memory of one team. A team of several computes one image.
struct ConditioningScratch {
  ConditioningScratch(const ConditioningConfig& config, const ConditioningJob& job);

  std::vector<float> values;  // the image as the network sees it, [h, w, D]
  struct Pair {
    Plane x, between;  // a block's input and result; what lies between its convolutions
  };
  std::vector<Pair> planes;          // at each resolution
  int64_t last_meeting = INT64_MAX;  // after it the first member goes on alone
};

// Computes one image; every member of the team calls it. Returns whether the logits that
// this member has written are finite.
using Condition = bool (*)(const ConditioningConfig&, const ConditioningNetwork&,
                           const ConditioningJob&, ConditioningScratch&, Team&, int64_t member,
                           int64_t image);
extern const Condition condition_baseline, condition_avx2, condition_avx512;

// Computes all images with up to `threads` threads: the result is the same to a bit. Returns
// whether all logits are finite. Throws std::bad_alloc where working memory is lacking.
bool condition_images(Condition kernel, const ConditioningConfig& config,
                      const ConditioningNetwork& network, const ConditioningJob& job,
                      int64_t threads);

}  // namespace prsr
