// The last layer of the conditioning network, for a part of a row of one image.
#pragma once

#include "gemm.h"
#include "operands.h"

namespace {

// Writes the logits of the pixels `first` … `last − 1`, given the features of the row.
inline void compute_logits(const prsr::Layer& layer, const float* features, int64_t inputs,
                           int64_t first, int64_t last, int64_t outputs, float* logits) {
  Gemm<float> p;
  p.weights = layer.weights;
  p.bias = layer.bias;
  p.in = features;
  p.lda = p.length = inputs;
  p.outputs = p.ld_out = outputs;
  p.out = logits;
  p.first_row = first;
  p.last_row = last;
  compute(p, Rows{});
}

}  // namespace
