// Draws rows by teams repeatedly, each time interrupted after the first row; used by
// test_native.py.
//
//   interrupted_teams THREADS CALLS
#include <cstdio>
#include <cstdlib>

#include "dispatch.h"

namespace {

int64_t pause = 0;

// Members only wait for each other and do a little work, which determines how many of them have
// begun when the first team is done.
void two_barriers(const prsr::PriorConfig&, const prsr::Network&, const prsr::Job&,
                  const prsr::Scratch&, prsr::Team& team, int64_t, int64_t, int64_t, int64_t) {
  team.barrier();
  volatile int64_t work = 0;
  while (work < pause) work = work + 1;
  team.barrier();
}

}  // namespace

namespace prsr {

const Kernel kernel_baseline = {two_barriers, 2, 2}, kernel_avx2 = kernel_baseline,
             kernel_avx512 = kernel_baseline, kernel_avx512bf16 = kernel_baseline;
const Condition condition_baseline = nullptr, condition_avx2 = nullptr, condition_avx512 = nullptr,
                condition_avx512bf16 = nullptr;

}  // namespace prsr

int main(int, char** arguments) {
  const prsr::PriorConfig config{3, 8, 8, 1, 1, 1, 8, 0, false};
  const float weights[1] = {};
  const int64_t offsets[64] = {};
  const prsr::Network network(config, weights, offsets);
  prsr::Job job{};
  job.bundles = 2;
  job.bundle = 1;
  job.height = job.width = 4;
  for (int64_t call = 0; call < std::atoll(arguments[2]); ++call) {
    pause = call % 16 * 2000;
    prsr::draw_rows(two_barriers, config, network, job, 0, job.height, std::atoll(arguments[1]),
                    [] { return false; });
  }
  std::puts("every call came back");
}
