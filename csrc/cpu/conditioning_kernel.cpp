// The conditioning network of one image. Compiled once per instruction set, under the name
// PRSR_CONDITION.
//
// Every convolution is a GEMM of gemm.h whose rows are the pixels of one row of the image: the
// inputs of a window are as many segments as the window has rows. The sums of a pixel do not depend
// on the other pixels of its register tile, so the result is bit-identical however rows are divided
// among threads.
#include <chrono>

#include "conditioning.h"
#include "gemm.h"
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

  // Returns whether all logits that this member has written are finite; if they are, the features
  // are.
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
    Vec finite = {};
    for (int64_t y = rows.first; y < rows.last; ++y) {
      const int64_t pixel = (image * from.height + y) * from.width;
      if (j.features) {
        std::memcpy(j.features + pixel * c.features, from.at(y, 0),
                    from.width * c.features * sizeof(float));
      }
      if (j.logits) {
        const int64_t levels = c.channels * c.levels;
        Gemm<float> p;
        p.weights = net.last.weights;
        p.bias = net.last.bias;
        p.in = from.at(y, 0);
        p.lda = p.length = c.features;
        p.outputs = p.ld_out = levels;
        p.out = j.logits + pixel * levels;
        p.last_row = from.width;
        compute(p, Rows{});
        note_finite(p.out, from.width * levels, finite);
      }
    }
    return sum(finite) == 0;
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

  // Zero times a finite number is zero; anything else makes `finite` NaN.
  static void note_finite(const float* at, int64_t count, Vec& finite) {
    for (int64_t i = 0; i < count; i += kLanes) finite += load_first(at + i, count - i) * 0.0f;
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
