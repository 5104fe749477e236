#include "conditioning.h"

#include <algorithm>
#include <atomic>
#include <deque>

#include "dispatch.h"
#include "thread_pool.h"

namespace prsr {

ConditioningNetwork::ConditioningNetwork(const ConditioningConfig& config, const float* weights,
                                         const int64_t* offsets)
    : stages(config.doublings + 1), doublings(config.doublings) {
  const auto matrix = [&] { return weights + *offsets++; };
  const auto layer = [&] {
    const float* const weights_of = matrix();
    return Layer{weights_of, matrix()};
  };
  first = layer();
  for (int64_t stage = 0; stage <= config.doublings; ++stage) {
    stages[stage].resize(config.blocks);
    for (Block& block : stages[stage]) {
      block.first = layer();
      block.second = layer();
    }
    if (stage == config.doublings) break;
    for (auto& row : doublings[stage].phases) {
      for (const float*& phase : row) phase = matrix();
    }
    doublings[stage].bias = matrix();
  }
  last = layer();
}

Plane::Plane(int64_t height, int64_t width, int64_t features)
    : height(height),
      width(width),
      row((width + 2) * features),
      features_(features),
      memory_((height + 2) * row) {}

float* Plane::at(int64_t y, int64_t x) {
  return memory_.data() + (y + 1) * row + (x + 1) * features_;
}

ConditioningScratch::ConditioningScratch(const ConditioningConfig& c, const ConditioningJob& job)
    : values(job.height * job.width * c.channels) {
  for (int64_t stage = 0; stage <= c.doublings; ++stage) {
    const Plane plane(job.height << stage, job.width << stage, c.features);
    planes.push_back({plane, plane});
  }
}

bool condition_images(Condition kernel, const ConditioningConfig& config,
                      const ConditioningNetwork& network, const ConditioningJob& job,
                      int64_t threads) {
  threads = std::max<int64_t>(threads, 1);
  // Each thread computes the same number of images alone; teams share the remaining ones.
  const int64_t shared = job.images % threads, alone = job.images - shared;
  const int64_t members =
      shared && !cores_contended() ? std::min(threads / shared, kMostMembers) : 1;
  const int64_t workers = alone ? threads : shared * members;
  std::deque<ConditioningScratch> scratches;
  for (int64_t worker = 0; worker < workers; ++worker) {
    if (alone || worker % members == 0) scratches.emplace_back(config, job);
  }
  std::deque<Team> teams;
  for (int64_t t = 0; t < shared; ++t) teams.emplace_back(members);
  std::atomic<bool> within{true};
  const auto one = [&](ConditioningScratch& scratch, Team& team, int64_t member, int64_t image) {
    if (!kernel(config, network, job, scratch, team, member, image)) within = false;
  };
  Team single(1);
  const auto work = [&](int64_t worker) {
    for (int64_t image = worker; image < alone; image += threads) {
      one(scratches[worker], single, 0, image);
    }
    const int64_t t = worker / members;
    if (t >= shared) return;
    teams[t].barrier();  // the memory of the first member is now the team's
    one(scratches[alone ? t * members : t], teams[t], worker % members, alone + t);
  };
  if (workers == 1 || !ThreadPool::here().run(workers, work)) {
    for (int64_t image = 0; image < job.images; ++image) one(scratches[0], single, 0, image);
  }
  return within;
}

}  // namespace prsr
