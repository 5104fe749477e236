// The horizontal stack and the head at one pixel: the dependent steps between two sub-pixels.
#pragma once

#include "gate_and_draw.h"
#include "row_context.h"

namespace {

// Number of images whose conditioning logits are prefetched before their turn.
constexpr int64_t kAhead = 2;

class HorizontalStack : RowContext {
 public:
  explicit HorizontalStack(const RowContext& context) : RowContext(context) {}

  // Sums the contributions of the pixels to the left to pixel x, for every block.
  void add_taps(int64_t x) {
    const int64_t c2 = 2 * c.features;
    for (int64_t l = 0; l < c.layers; ++l) {
      Gemm p = gemm(kPixelStrip);
      p.in = horizontal_at(0, l, x);
      p.segments = c.reach;
      p.segment_stride = (c.layers + 1) * c.features * b;
      p.length = c.features;
      p.lda = strides.horizontal;
      p.weights = net.blocks[l].taps;
      p.outputs = c2;
      p.start = above_at(0, l, x);
      p.ld_start = strides.above;
      p.out = given_at(l);
      p.ld_out = c2 * b;
      p.last_row = count;
      compute(p);
    }
  }

  // The sequential part for colour g of pixel x: the first layer and the blocks.
  void chain(int64_t x, int64_t g) {
    const int64_t c2 = 2 * c.features, pixel = c.reach + x;
    const int64_t begin = features.begin_of(g), size = features.size(g);
    g == 0 ? first_layer_left(x) : first_layer_own(x, g);
    for (int64_t l = 0; l < c.layers; ++l) {
      const Step& step = net.groups[g].steps[l];
      Gemm p = of_group(step.centre, g);
      p.in = horizontal_at(0, l, pixel);
      p.lda = strides.horizontal;
      p.outputs = b > 1 ? 2 * size : whole_lines(2 * size);  // padding beyond the group may be
                                                             // overwritten
      p.start = given_at(l) + 2 * begin * b;
      p.ld_start = c2 * b;
      p.out = s.chain;
      p.ld_out = s.chain_stride;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        gate_features(s.chain + n * s.chain_stride, size * b,
                      gated_at(l) + (n * c.features + begin) * b);
      }
      Gemm q = of_group(step.mix.weights, g);
      q.in = gated_at(l);
      q.lda = c.features * b;
      q.outputs = size;
      q.bias = step.mix.bias;
      q.then = horizontal_at(0, l, pixel) + begin * b;
      q.ld_then = strides.horizontal;
      q.out = horizontal_at(0, l + 1, pixel) + begin * b;
      q.ld_out = strides.horizontal;
      compute(q);
    }
  }

  void hidden_units(int64_t x, int64_t g) {
    Gemm p = of_group(net.groups[g].head.weights, g);
    p.half = c.half_head;
    p.in = horizontal_at(0, c.layers, c.reach + x);
    p.lda = strides.horizontal;
    p.outputs = units.size(g);
    p.bias = net.groups[g].head.bias;
    p.out = s.hidden + units.begin_of(g) * b;
    p.ld_out = c.units * b;
    p.relu = true;
    compute(p);
    if (count * b == 1) list_active(g);
    for (int64_t i = 0; i < kAhead; ++i) prefetch_conditioning(bundle * b + i, x, g);
  }

  // Adds to some blocks of the logits of colour g the contributions of the hidden units of the
  // colours `from` … `to − 1`. If `from` is 0, the sums start from the bias.
  void add_units(int64_t x, int64_t g, int64_t from, int64_t to, int64_t block,
                 int64_t last_block) {
    Gemm p = gemm(kPixelStrip);
    p.weights = net.groups[g].output.weights;
    p.half = c.half_head;
    p.inputs = units.end_of(g);
    p.outputs = c.levels;
    p.out = b > 1 ? s.mixed : logits_at(x, g);
    p.ld_out = b > 1 ? c.levels * b : s.logits_stride;
    if (from == 0) {
      p.bias = net.groups[g].output.bias;
    } else {
      p.start = p.out;
      p.ld_start = p.ld_out;
    }
    p.last_row = count;
    p.first_block = block;
    p.last_block = last_block;
    if (count * b == 1) {
      const int64_t first = active_before(from);
      p.in = s.hidden;
      compute(p, Sparse{s.active + first, active_before(to) - first});
    } else {
      p.first_input = units.begin_of(from);
      p.in = s.hidden + p.first_input * b;
      p.lda = c.units * b;
      p.length = units.begin_of(to) - p.first_input;
      compute(p);
    }
  }

  // Draws colour g of pixel x of every image, or copies the known value.
  void draw_sub_pixel(int64_t x, int64_t g) {
    for (int64_t n = 0; n < count; ++n) {
      float* const logits = logits_at(x, g) + n * b * s.logits_stride;
      if (b > 1) split_bundle(s.mixed + n * c.levels * b, c.levels, logits, s.logits_stride);
      for (int64_t i = 0; i < b; ++i) {
        const int64_t image = (bundle + n) * b + i;
        prefetch_conditioning(image + kAhead, x, g);
        const int64_t place = ((image * c.channels + g) * j.height + y) * j.width + x;
        if (!(j.mask && j.mask[place])) {
          const int64_t which = sub_pixel(image, x, g);
          const int64_t level =
              draw(logits + i * s.logits_stride, j.conditioning + which * c.levels, c.levels,
                   j.noise[which], j.temperature[image]);
          j.image[place] = static_cast<uint8_t>(level);
        }
        values_at(n, c.first_reach + y, c.first_reach + x)[g * b + i] =
            static_cast<float>(j.image[place]) / static_cast<float>(c.levels - 1) - 0.5f;
      }
    }
  }

 private:
  // The logits of each image come from memory, and no hardware prefetcher predicts the address of
  // the next image's.
  void prefetch_conditioning(int64_t image, int64_t x, int64_t g) const {
    if (image >= (bundle + count) * b) return;
    prefetch(j.conditioning + sub_pixel(image, x, g) * c.levels, c.levels);
  }

  // Index of the sub-pixel in the order of noise and conditioning.
  int64_t sub_pixel(int64_t image, int64_t x, int64_t g) const {
    return ((image * j.height + y) * j.width + x) * c.channels + g;
  }

  // GEMM of the features with the weights of a group, which reads all features up to its own.
  Gemm of_group(const void* weights, int64_t g) const {
    Gemm p = gemm(kPixelStrip);
    p.weights = weights;
    p.length = features.end_of(g);
    p.last_row = count;
    return p;
  }

  void first_layer_left(int64_t x) {
    Gemm p = gemm(kPixelStrip);
    p.in = values_at(0, c.first_reach + y, x);
    p.length = c.first_reach * c.channels;
    p.lda = strides.values;
    p.weights = net.first_left.weights;
    p.bias = net.first_left.bias;
    p.outputs = c.features;
    p.out = horizontal_at(0, 0, c.reach + x);
    p.ld_out = strides.horizontal;
    p.last_row = count;
    compute(p);
  }

  // Adds the contribution of the earlier colours of the same pixel.
  void first_layer_own(int64_t x, int64_t g) {
    Gemm p = gemm(kPixelStrip);
    p.in = values_at(0, c.first_reach + y, c.first_reach + x);
    p.length = g;
    p.lda = strides.values;
    p.weights = net.groups[g].first_own;
    p.outputs = features.size(g);
    p.start = p.out = horizontal_at(0, 0, c.reach + x) + features.begin_of(g) * b;
    p.ld_start = p.ld_out = strides.horizontal;
    p.last_row = count;
    compute(p);
  }

  // About half of the hidden units of an image are zero. Their weights need not be read.
  void list_active(int64_t g) {
    int64_t active = active_before(g);
    for (int64_t unit = units.begin_of(g); unit < units.end_of(g); ++unit) {
      s.active[active] = static_cast<int32_t>(unit);
      active += !(s.hidden[unit] <= 0);  // NaN counts as nonzero, as in a bundle
    }
    s.active_end[g] = active;
  }

  int64_t active_before(int64_t g) const { return g ? s.active_end[g - 1] : 0; }
};

}  // namespace
