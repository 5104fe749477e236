// The conditioning network of one image. Compiled once per instruction set, under the name
// PRSR_CONDITION.
//
// Every convolution is a GEMM of gemm.h whose rows are the pixels of one row of the image: the
// inputs of a window are as many segments as the window has rows. The sums of a pixel do not depend
// on the other pixels of its register tile, so the result is bit-identical however rows are divided
// among threads.
#include <chrono>

#include "conditioning.h"
#include "last_layer.h"
#include "row_context.h"

namespace {

using prsr::ConditioningConfig;
using prsr::ConditioningJob;
using prsr::ConditioningNetwork;
using prsr::ConditioningScratch;
using prsr::Plane;

// Members wait some microseconds for each other at each of forty barriers per image. This is the
// total time above which the cores may count as contended.
constexpr std::chrono::nanoseconds kPatience = std::chrono::milliseconds(1);

// What one member of a team computes of one image: its share of the rows of every layer.
class Conditioner {
 public:
  Conditioner(const ConditioningConfig& config, const ConditioningNetwork& network,
              const ConditioningJob& job, ConditioningScratch& scratch, Team& team, int64_t member,
              int64_t image)
      : c(config),
        net(network),
        j(job),
        s(scratch),
        team(team),
        member(member),
        image(image),
        members(team.size()) {}

  // Returns whether the features that this member has written are within the job's limit.
  bool compute_image() {
    if (!first_layer(s.planes[0].x)) return true;
    int64_t step = 0;
    for (int64_t stage = 0;; ++stage) {
      ConditioningScratch::Pair& planes = s.planes[stage];
      for (const ConditioningNetwork::Block& block : net.stages[stage]) {
        if (step++ == j.steps) return write_outputs(planes.x);
        if (!convolve(planes.x, block.first, true, planes.between, false)) return true;
        if (!convolve(planes.between, block.second, false, planes.x, true)) return true;
      }
      if (stage == c.doublings || step++ == j.steps) return write_outputs(planes.x);
      if (!double_size(planes.x, net.doublings[stage], s.planes[stage + 1].x)) return true;
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Each layer returns whether this member continues with the next one.
  bool first_layer(Plane& to) {
    const Share rows(to.height, member, members);
    for (int64_t y = rows.first; y < rows.last; ++y) {
      float* const values = s.values.data() + y * to.width * c.channels;
      for (int64_t g = 0; g < c.channels; ++g) {
        const uint8_t* const low = j.low + ((image * c.channels + g) * to.height + y) * to.width;
        for (int64_t x = 0; x < to.width; ++x) {
          values[x * c.channels + g] =
              static_cast<float>(low[x]) / static_cast<float>(c.levels - 1) - 0.5f;
        }
      }
      Gemm<float> p = gemm(net.first.weights, net.first.bias, to, y);
      p.in = values;
      p.lda = p.length = c.channels;
      compute(p, Rows{});
    }
    return barrier();
  }

  // A 3×3 convolution. With `residual`, the previous contents of `to` are added.
  bool convolve(Plane& from, const Layer& layer, bool relu, Plane& to, bool residual) {
    const Share rows(to.height, member, members);
    for (int64_t y = rows.first; y < rows.last; ++y) {
      Gemm<float> p = gemm(layer.weights, layer.bias, to, y);
      p.in = from.at(y - 1, -1);
      p.segments = 3;
      p.segment_stride = from.row;
      p.length = 3 * c.features;
      p.lda = c.features;
      p.relu = relu;
      if (residual) {
        p.then = p.out;
        p.ld_then = p.ld_out;
      }
      compute(p, Rows{});
    }
    return barrier();
  }

  bool double_size(Plane& from, const ConditioningNetwork::Doubling& doubling, Plane& to) {
    const Share rows(from.height, member, members);
    for (int64_t y = rows.first; y < rows.last; ++y) {
      for (int64_t py = 0; py < 2; ++py) {
        for (int64_t px = 0; px < 2; ++px) {
          Gemm<float> p = gemm(doubling.phases[py][px], doubling.bias, to, 2 * y + py);
          p.in = from.at(y, 0);
          p.segments = 1 + py;
          p.segment_stride = from.row;
          p.length = (1 + px) * c.features;
          p.lda = c.features;
          p.relu = true;
          p.out += px * c.features;
          p.ld_out = 2 * c.features;
          p.last_row = from.width;
          compute(p, Rows{});
        }
      }
    }
    return barrier();
  }

  // Writes the features and the logits that the job asks for.
  bool write_outputs(Plane& from) {
    const Share rows(from.height, member, members);
    const int64_t size = from.width * c.features;
    IntVec within = Vec{} == Vec{};
    for (int64_t y = rows.first; y < rows.last; ++y) {
      const int64_t pixel = (image * from.height + y) * from.width;
      const float* const features = from.at(y, 0);
      for (int64_t i = 0; i < size; i += kLanes) {
        const Vec some = load_first(features + i, size - i);
        within &= (some <= j.limit) & (some >= -j.limit);  // NaN is not
      }
      if (j.features) std::memcpy(j.features + pixel * c.features, features, size * sizeof(float));
      if (j.logits) {
        const int64_t levels = c.channels * c.levels;
        compute_logits(net.last, features, c.features, 0, from.width, levels,
                       j.logits + pixel * levels);
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!within[lane]) return false;
    }
    return true;
  }

  // Waits until all members have completed the layer. Returns whether this member continues: if
  // other processes use the cores, the first member goes on alone, because waiting takes longer
  // than the work.
  bool barrier() {
    if (members == 1) return true;
    ++meeting;
    const auto start = Clock::now();
    if (member == 0 && waited > kPatience && 2 * waited > start - begun) {
      // Set before the barrier, so that all members leave at the same one.
      __atomic_store_n(&s.last_meeting, meeting, __ATOMIC_RELEASE);
    }
    team.barrier();
    waited += Clock::now() - start;
    if (__atomic_load_n(&s.last_meeting, __ATOMIC_ACQUIRE) > meeting) return true;
    members = 1;
    return member == 0;
  }

  // The GEMM of one row of a layer, all pixels.
  Gemm<float> gemm(const float* weights, const float* bias, Plane& to, int64_t y) const {
    Gemm<float> p;
    p.weights = weights;
    p.bias = bias;
    p.outputs = c.features;
    p.out = to.at(y, 0);
    p.ld_out = c.features;
    p.last_row = to.width;
    return p;
  }

  const ConditioningConfig& c;
  const ConditioningNetwork& net;
  const ConditioningJob& j;
  ConditioningScratch& s;
  Team& team;
  const int64_t member, image;
  int64_t members, meeting = 0;
  const Clock::time_point begun = Clock::now();
  Clock::duration waited{0};
};

bool condition(const ConditioningConfig& config, const ConditioningNetwork& network,
               const ConditioningJob& job, ConditioningScratch& scratch, Team& team, int64_t member,
               int64_t image) {
  return Conditioner(config, network, job, scratch, team, member, image).compute_image();
}

}  // namespace

namespace prsr {

const Condition PRSR_CONDITION = condition;

}  // namespace prsr
