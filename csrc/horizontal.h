// The horizontal stack and the head at one pixel: what the chain from sub-pixel to sub-pixel is
// made of.
#pragma once

#include "draw.h"
#include "place.h"

namespace {

class HorizontalStack : Place {
 public:
  explicit HorizontalStack(const Place& place) : Place(place) {}

  // What the pixels to the left give to pixel x in every block.
  void add_taps(int64_t x) {
    const int64_t c2 = 2 * c.features;
    for (int64_t l = 0; l < c.layers; ++l) {
      Product p;
      p.in = horizontal_at(0, l, x);
      p.segments = c.reach;
      p.segment_stride = j.images * c.features;
      p.length = p.lda = c.features;
      p.weights = net.blocks[l].taps;
      p.outputs = c2;
      p.start = above_at(0, l, x);
      p.ld_start = c2;
      p.out = given_at(l);
      p.ld_out = c2;
      p.last_row = count;
      compute(p);
    }
  }

  // What must run in sequence for colour g of pixel x: the first layer and the blocks.
  void chain(int64_t x, int64_t g) {
    const int64_t c2 = 2 * c.features, pixel = c.reach + x;
    const int64_t begin = features.begin_of(g), size = features.size(g);
    g == 0 ? first_layer_left(x) : first_layer_own(x, g);
    for (int64_t l = 0; l < c.layers; ++l) {
      const Block& block = net.blocks[l];
      Product p = of_group(block.centre[g], g);
      p.in = horizontal_at(0, l, pixel);
      p.lda = c.features;
      p.outputs = whole_lines(2 * size);  // what is beyond the group is nobody's
      p.start = given_at(l) + 2 * begin;
      p.ld_start = c2;
      p.out = s.chain;
      p.ld_out = s.chain_stride;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        gate_features(s.chain + n * s.chain_stride, size, gated_at(l) + n * c.features + begin);
      }
      Product q = of_group(block.mix[g].weights, g);
      q.in = gated_at(l);
      q.lda = c.features;
      q.outputs = size;
      q.bias = block.mix[g].bias;
      q.then = horizontal_at(0, l, pixel) + begin;
      q.ld_then = c.features;
      q.out = horizontal_at(0, l + 1, pixel) + begin;
      q.ld_out = c.features;
      compute(q);
    }
  }

  void hidden_units(int64_t x, int64_t g) {
    Product p = of_group(net.head[g].weights, g);
    p.half = c.half_head;
    p.in = horizontal_at(0, c.layers, c.reach + x);
    p.lda = c.features;
    p.outputs = units.size(g);
    p.bias = net.head[g].bias;
    p.out = s.hidden + units.begin_of(g);
    p.ld_out = c.units;
    p.relu = true;
    compute(p);
    if (count == 1) list_alive(g);
  }

  // Adds what the hidden units of the colours `from` … `to − 1` give to some blocks of the logits
  // of colour g; from = 0 begins them with bias and conditioning.
  void add_units(int64_t x, int64_t g, int64_t from, int64_t to, int64_t block,
                 int64_t last_block) {
    Product p;
    p.weights = net.output[g].weights;
    p.half = c.half_head;
    p.inputs = units.end_of(g);
    p.outputs = c.levels;
    p.out = logits_at(x, g);
    p.ld_out = s.logits_stride;
    if (from == 0) {
      p.bias = net.output[g].bias;
      p.start = conditioning_at(0, x, g);
      p.ld_start = j.height * j.width * c.channels * c.levels;
    } else {
      p.start = p.out;
      p.ld_start = p.ld_out;
    }
    p.last_row = count;
    p.first_block = block;
    p.last_block = last_block;
    if (count == 1) {
      const int64_t first = alive_before(from);
      p.in = s.hidden;
      compute(p, Sparse{s.alive + first, alive_before(to) - first});
    } else {
      p.first_input = units.begin_of(from);
      p.in = s.hidden + p.first_input;
      p.lda = c.units;
      p.length = units.begin_of(to) - p.first_input;
      compute(p);
    }
  }

  // Draws colour g of pixel x of every picture, or takes it as given.
  void choose(int64_t x, int64_t g) {
    for (int64_t n = 0; n < count; ++n) {
      const int64_t place = (image + n) * strides.picture + (g * j.height + y) * j.width + x;
      if (!(j.mask && j.mask[place])) {
        const float u = j.noise[(((image + n) * j.height + y) * j.width + x) * c.channels + g];
        const int64_t level =
            draw(logits_at(x, g) + n * s.logits_stride, c.levels, u, j.temperature[image + n]);
        j.picture[place] = static_cast<uint8_t>(level);
      }
      values_at(n, c.first_reach + y, c.first_reach + x)[g] =
          static_cast<float>(j.picture[place]) / static_cast<float>(c.levels - 1) - 0.5f;
    }
  }

 private:
  // Features times the weights of a group, which reads all up to its own.
  Product of_group(const void* weights, int64_t g) const {
    Product p;
    p.weights = weights;
    p.length = features.end_of(g);
    p.last_row = count;
    return p;
  }

  void first_layer_left(int64_t x) {
    Product p;
    p.in = values_at(0, c.first_reach + y, x);
    p.length = c.first_reach * c.channels;
    p.lda = strides.values;
    p.weights = net.first_left.weights;
    p.bias = net.first_left.bias;
    p.outputs = c.features;
    p.out = horizontal_at(0, 0, c.reach + x);
    p.ld_out = c.features;
    p.last_row = count;
    compute(p);
  }

  // What the earlier colours of the same pixel add to it.
  void first_layer_own(int64_t x, int64_t g) {
    Product p;
    p.in = values_at(0, c.first_reach + y, c.first_reach + x);
    p.length = g;
    p.lda = strides.values;
    p.weights = net.first_own[g];
    p.outputs = features.size(g);
    p.start = p.out = horizontal_at(0, 0, c.reach + x) + features.begin_of(g);
    p.ld_start = p.ld_out = c.features;
    p.last_row = count;
    compute(p);
  }

  // One picture's units are half zeros, whose weights need not be read.
  void list_alive(int64_t g) {
    int64_t alive = alive_before(g);
    for (int64_t unit = units.begin_of(g); unit < units.end_of(g); ++unit) {
      s.alive[alive] = static_cast<int32_t>(unit);
      alive += s.hidden[unit] > 0;
    }
    s.alive_end[g] = alive;
  }

  int64_t alive_before(int64_t g) const { return g ? s.alive_end[g - 1] : 0; }
};

}  // namespace
