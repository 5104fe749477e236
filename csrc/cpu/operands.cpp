#include "operands.h"

#include <iterator>
#include <new>

namespace prsr {

namespace {

constexpr int64_t kLine = 16;   // floats in 64 bytes
constexpr int64_t kBlock = 64;  // outputs per block of weights, as in gemm.h

int64_t lines(int64_t floats) { return (floats + kLine - 1) / kLine * kLine; }

}  // namespace

Network::Network(const PriorConfig& config, const float* weights, const int64_t* offsets)
    : blocks(config.layers), groups(config.channels) {
  const auto matrix = [&] { return weights + *offsets++; };
  const auto layer = [&] {
    const float* const weights_of = matrix();
    return Layer{weights_of, matrix()};
  };
  first_vertical = layer();
  for (Block& block : blocks) {
    block.vertical = layer();
    block.link = layer();
  }
  first_left = layer();
  for (Block& block : blocks) block.taps = matrix();
  for (Group& group : groups) {
    group.first_own = matrix();
    group.steps.resize(config.layers);
    for (Step& step : group.steps) {
      step.centre = matrix();
      step.mix = layer();
    }
    group.head = layer();
    group.output = layer();
  }
}

Scratch::Scratch(const PriorConfig& c, const Job& job, int64_t bundles)
    : bundles(bundles), active_(c.units + kLine), active_end_(c.channels) {
  const int64_t width = job.width, bundle = job.bundle, images = bundles * bundle;
  chain_stride = 2 * lines(c.features) * bundle;
  logits_stride = lines(c.levels) + lines(lines(c.levels) / kLine);
  logits_size = images * logits_stride;
  float** const arrays[] = {&preactivations, &given,  &chain,  &mix_sums,
                            &gated,          &hidden, &mixed,  &own,
                            &own_hidden,     &linked, &logits, &conditioning};
  const int64_t sizes[] = {width * 2 * c.features * bundle,
                           c.layers * images * 2 * c.features,
                           bundles * chain_stride,
                           bundle > 1 ? 0 : c.layers * c.features,
                           c.layers * images * c.features,
                           images * c.units,
                           bundle > 1 ? images * c.levels : 0,
                           c.bf16 ? images * c.features : 0,
                           c.bf16 ? images * c.units : 0,
                           c.bf16 ? width * c.features * bundle : 0,
                           2 * logits_size,
                           job.conditioning ? 0 : images * width * c.channels * c.levels};
  int64_t total = 0;
  for (const int64_t size : sizes)
    total += lines(size) + kLine;  // kernels may read one line
                                   // beyond the end
  memory_.reset(static_cast<float*>(::operator new(4 * total, std::align_val_t{64})));
  float* next = memory_.get();
  for (size_t i = 0; i < std::size(arrays); ++i) {
    *arrays[i] = next;
    next += lines(sizes[i]) + kLine;
  }
  active = active_.data();
  active_end = active_end_.data();
  claims_.emplace_back((c.levels + kBlock - 1) / kBlock);
  claims_.emplace_back((c.levels + kBlock - 1) / kBlock);
  claims = claims_.data();
}

void Scratch::Deleter::operator()(float* memory) const {
  ::operator delete(memory, std::align_val_t{64});
}

}  // namespace prsr
