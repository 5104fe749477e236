#include "engine.h"

#include <new>

namespace prsr {

namespace {

constexpr int64_t kLine = 16;   // floats in 64 bytes
constexpr int64_t kBlock = 64;  // outputs whose weights lie side by side, as in product.h

int64_t lines(int64_t floats) { return (floats + kLine - 1) / kLine * kLine; }

}  // namespace

Network::Network(const Config& config, const float* weights, const int64_t* offsets) {
  const int64_t groups = config.channels;
  const auto matrix = [&] { return weights + *offsets++; };
  const auto layer = [&] {
    const float* const weights_of = matrix();
    return Layer{weights_of, matrix()};
  };
  // Reserved in full, so that pointers into them stay good.
  blocks_.reserve(config.layers);
  matrices_.reserve((config.layers + 1) * groups);
  layers_.reserve((config.layers + 2) * groups);
  const auto matrix_of_each_group = [&] {
    const size_t first = matrices_.size();
    for (int64_t g = 0; g < groups; ++g) matrices_.push_back(matrix());
    return matrices_.data() + first;
  };
  const auto layer_of_each_group = [&] {
    const size_t first = layers_.size();
    for (int64_t g = 0; g < groups; ++g) layers_.push_back(layer());
    return layers_.data() + first;
  };
  first_vertical = layer();
  first_left = layer();
  first_own = matrix_of_each_group();
  for (int64_t l = 0; l < config.layers; ++l) {
    Block block;
    block.vertical = layer();
    block.link = layer();
    block.taps = matrix();
    block.centre = matrix_of_each_group();
    block.mix = layer_of_each_group();
    blocks_.push_back(block);
  }
  blocks = blocks_.data();
  head = layer_of_each_group();
  output = layer_of_each_group();
}

Scratch::Scratch(const Config& c, int64_t width, int64_t bundles, int64_t bundle)
    : bundles(bundles), alive_(c.units), alive_end_(c.channels) {
  const int64_t images = bundles * bundle;
  chain_stride = 2 * lines(c.features) * bundle;
  logits_stride = lines(c.levels) + lines(lines(c.levels) / kLine);
  logits_size = images * logits_stride;
  float** const arrays[] = {&preactivations, &given, &chain, &gated, &hidden, &mixed, &logits};
  const int64_t sizes[] = {width * 2 * c.features * bundle,
                           c.layers * images * 2 * c.features,
                           bundles * chain_stride,
                           c.layers * images * c.features,
                           images * c.units,
                           bundle > 1 ? images * c.levels : 0,
                           2 * logits_size};
  int64_t total = 0;
  for (const int64_t size : sizes) total += lines(size) + kLine;  // a line more may be read
  memory_.reset(static_cast<float*>(::operator new(4 * total, std::align_val_t{64})));
  float* next = memory_.get();
  for (int i = 0; i < 7; ++i) {
    *arrays[i] = next;
    next += lines(sizes[i]) + kLine;
  }
  alive = alive_.data();
  alive_end = alive_end_.data();
  claims_.emplace_back((c.levels + kBlock - 1) / kBlock);
  claims_.emplace_back((c.levels + kBlock - 1) / kBlock);
  claims = claims_.data();
}

void Scratch::Deleter::operator()(float* memory) const {
  ::operator delete(memory, std::align_val_t{64});
}

}  // namespace prsr
