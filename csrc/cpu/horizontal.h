// The horizontal stack and the head at one pixel: the dependent steps between two sub-pixels.
#pragma once

#include "gate_and_draw.h"
#include "row_context.h"
#include "single_image_chain.h"

namespace {

// Number of images whose conditioning logits are prefetched before their turn.
constexpr int64_t kAhead = 2;

// With operands of one type: floats, or pairs of bfloat16.
template <typename Operand>
class HorizontalStack : RowContext {
 public:
  explicit HorizontalStack(const RowContext& context)
      : RowContext(context), single_image(context) {}

  // Sums the contributions of the pixels to the left to pixel x, for every block.
  void add_taps(int64_t x) {
    const int64_t c2 = 2 * c.features;
    for (int64_t l = 0; l < c.layers; ++l) {
      Gemm<Operand> p = gemm<Operand>(net.blocks[l].taps, kPixelStrip);
      p.in = horizontal_at<Operand>(0, l, x);
      p.segments = c.reach;
      p.segment_stride = (c.layers + 1) * feature_operands.count * b;
      p.length = feature_operands.count;
      p.lda = strides.horizontal;
      p.outputs = c2;
      p.start = above_at(0, l, x);
      p.ld_start = strides.above;
      p.out = given_at(l);
      p.ld_out = c2 * b;
      p.last_row = count;
      compute(p);
    }
  }

  // The chain for colour g of pixel x, the sequential part: the first layer and the blocks.
  void chain(int64_t x, int64_t g) {
    const int64_t c2 = 2 * c.features;
    const int64_t begin = features.begin_of(g), size = features.size(g);
    const int64_t first_operand = feature_operands.begin_of(g);
    g == 0 ? first_layer_left(x) : first_layer_own(x, g);
    if (single_image.serves()) return single_image.run(x, g, own_at(0, x) + begin);
    keep(0, x, g);
    for (int64_t l = 0; l < c.layers; ++l) {
      const Step& step = net.groups[g].steps[l];
      Gemm<Operand> p = of_group(step.centre, g);
      p.in = horizontal_at<Operand>(0, l, c.reach + x);
      p.lda = strides.horizontal;
      p.outputs = b > 1 ? 2 * size : whole_lines(2 * size);  // padding beyond the group may be
                                                             // overwritten
      p.start = given_at(l) + 2 * begin * b;
      p.ld_start = c2 * b;
      p.out = s.chain;
      p.ld_out = s.chain_stride;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        gate_features(s.chain + n * s.chain_stride, size, b,
                      gated_at<Operand>(l) + (n * feature_operands.count + first_operand) * b);
      }
      Gemm<Operand> q = of_group(step.mix.weights, g);
      q.in = gated_at<Operand>(l);
      q.lda = feature_operands.count * b;
      q.outputs = size;
      q.bias = step.mix.bias;
      q.then = own_at(l, x) + begin * b;
      q.out = own_at(l + 1, x) + begin * b;
      q.ld_then = q.ld_out = own_stride();
      compute(q);
      keep(l + 1, x, g);
    }
  }

  void hidden_units(int64_t x, int64_t g) {
    const int64_t begin = units.begin_of(g), size = units.size(g);
    Gemm<Operand> p = of_group(net.groups[g].head.weights, g);
    p.in = horizontal_at<Operand>(0, c.layers, c.reach + x);
    p.lda = strides.horizontal;
    p.outputs = size;
    p.bias = net.groups[g].head.bias;
    p.ld_out = c.units * b;
    p.relu = true;
    if constexpr (kRounded) {
      p.out = s.own_hidden + begin * b;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        round_features(p.out + n * p.ld_out, size, b,
                       hidden() + (n * unit_operands.count + unit_operands.begin_of(g)) * b);
      }
    } else {
      p.out = hidden() + begin * b;
      compute(p);
    }
    if (!kTiles) list_active(g);
    for (int64_t i = 0; i < kAhead; ++i) prefetch_conditioning(i, x, g);
  }

  // Adds to some blocks of the logits of colour g the contributions of the hidden units of the
  // colours `from` … `to − 1`. If `from` is 0, the sums start from the bias.
  void add_units(int64_t x, int64_t g, int64_t from, int64_t to, int64_t block,
                 int64_t last_block) {
    if (kTiles && to - from > 1) {  // the units of each colour begin a new chunk
      for (; from < to; ++from) add_units(x, g, from, from + 1, block, last_block);
      return;
    }
    Gemm<Operand> p = gemm<Operand>(net.groups[g].output.weights, kPixelStrip);
    p.tiles = &tiles;
    p.inputs = unit_operands.end_of(g);
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
    p.lda = unit_operands.count * b;
    if (kTiles) {
      p.first_input = unit_operands.begin_of(from);
      p.in = hidden() + p.first_input * b;
      p.length = unit_operands.begin_of(to) - p.first_input;
    } else {
      p.in = hidden();
      p.nonzero = s.active + active_before(from);
      p.nonzero_count = active_before(to) - active_before(from);
    }
    compute(p);
  }

  // Draws colour g of pixel x of every image, or copies the known value.
  void draw_sub_pixel(int64_t x, int64_t g) {
    for (int64_t n = 0; n < count; ++n) {
      float* const logits = logits_at(x, g) + n * b * s.logits_stride;
      if (b > 1) split_bundle(s.mixed + n * c.levels * b, c.levels, logits, s.logits_stride);
      for (int64_t i = 0; i < b; ++i) {
        const int64_t image = (bundle + n) * b + i;
        prefetch_conditioning(n * b + i + kAhead, x, g);
        const int64_t place = ((image * c.channels + g) * j.height + y) * j.width + x;
        if (!(j.mask && j.mask[place])) {
          const int64_t level =
              draw(logits + i * s.logits_stride, conditioning_of(n * b + i, x, g), c.levels,
                   j.noise[sub_pixel(image, x, g)], j.temperature[image]);
          j.image[place] = static_cast<uint8_t>(level);
        }
        values_at(n, c.first_reach + y, c.first_reach + x)[g * b + i] =
            static_cast<float>(j.image[place]) / static_cast<float>(c.levels - 1) - 0.5f;
      }
    }
  }

 private:
  // Whether operands are rounded: then features and units are computed elsewhere and copied.
  static constexpr bool kRounded = !std::is_same_v<Operand, float>;

  // The features of pixel x in one layer in float32, from which residuals are computed: what is
  // cached, if that is not rounded.
  float* own_at(int64_t layer, int64_t x) const {
    if constexpr (kRounded) {
      return s.own;
    } else {
      return horizontal_at<float>(0, layer, c.reach + x);
    }
  }
  int64_t own_stride() const { return kRounded ? c.features * b : strides.horizontal; }

  // Caches the features of colour g that own_at() has.
  void keep(int64_t layer, int64_t x, int64_t g) {
    if constexpr (kRounded) {
      for (int64_t n = 0; n < count; ++n) {
        round_features(
            s.own + (n * c.features + features.begin_of(g)) * b, features.size(g), b,
            horizontal_at<Pair>(n, layer, c.reach + x) + feature_operands.begin_of(g) * b);
      }
    }
  }

  Operand* hidden() const { return reinterpret_cast<Operand*>(s.hidden); }

  // The conditioning logits of a sub-pixel of an image, counted from that of `bundle`.
  const float* conditioning_of(int64_t image, int64_t x, int64_t g) const {
    return j.conditioning ? j.conditioning + sub_pixel(bundle * b + image, x, g) * c.levels
                          : conditioning_at(image) + (x * c.channels + g) * c.levels;
  }

  // They are not in the first cache levels, and no hardware prefetcher predicts the address of the
  // next image's.
  void prefetch_conditioning(int64_t image, int64_t x, int64_t g) const {
    if (image < count * b) prefetch(conditioning_of(image, x, g), c.levels);
  }

  // Index of the sub-pixel in the order of noise and conditioning.
  int64_t sub_pixel(int64_t image, int64_t x, int64_t g) const {
    return ((image * j.height + y) * j.width + x) * c.channels + g;
  }

  // GEMM of the features with the weights of a group, which reads all features up to its own.
  Gemm<Operand> of_group(const float* weights, int64_t g) const {
    Gemm<Operand> p = gemm<Operand>(weights, kPixelStrip);
    p.length = feature_operands.end_of(g);
    p.last_row = count;
    return p;
  }

  void first_layer_left(int64_t x) {
    Gemm<float> p = gemm<float>(net.first_left.weights, kPixelStrip);
    p.in = values_at(0, c.first_reach + y, x);
    p.length = c.first_reach * c.channels;
    p.lda = strides.values;
    p.bias = net.first_left.bias;
    p.outputs = c.features;
    p.out = own_at(0, x);
    p.ld_out = own_stride();
    p.last_row = count;
    compute(p);
  }

  // Adds the contribution of the earlier colours of the same pixel.
  void first_layer_own(int64_t x, int64_t g) {
    Gemm<float> p = gemm<float>(net.groups[g].first_own, kPixelStrip);
    p.in = values_at(0, c.first_reach + y, c.first_reach + x);
    p.length = g;
    p.lda = strides.values;
    p.outputs = features.size(g);
    p.start = p.out = own_at(0, x) + features.begin_of(g) * b;
    p.ld_start = p.ld_out = own_stride();
    p.last_row = count;
    compute(p);
  }

  // Few hidden units of an image are nonzero, and the same ones in many images: in trained models
  // one in twenty, and one in ten in any of 8 images. The weights of the others are not read. Tiles
  // multiply chunks of 16 pairs, nearly all of which have a nonzero unit, and thus skip none.
  void list_active(int64_t g) {
    int64_t active = active_before(g);
    const int64_t end = unit_operands.end_of(g);
    const int64_t together = b > 1 ? 1 : kLanes;
    for (int64_t i = unit_operands.begin_of(g); i < end; i += together) {
      const int64_t lanes = b > 1 ? b : end - i < kLanes ? end - i : kLanes;
      IntVec found = {};
      for (int64_t n = 0; n < count; ++n) {
        const Operand* const units = hidden() + (n * unit_operands.count + i) * b;
        for (int64_t lane = 0; lane < lanes; lane += kLanes) {
          found |= nonzero(load_first(units + lane, lanes - lane));
        }
      }
      if (b == 1) {
        active += store_numbers(s.active + active, found, i);
      } else {
        s.active[active] = static_cast<int32_t>(i);
        active += any(found);
      }
    }
    s.active_end[g] = active;
  }

  int64_t active_before(int64_t g) const { return g ? s.active_end[g - 1] : 0; }

  SingleImageChain<Operand> single_image;
};

}  // namespace
