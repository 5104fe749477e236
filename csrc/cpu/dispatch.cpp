#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <deque>

#include "instruction_sets.h"
#include "thread_pool.h"

namespace prsr {

namespace {

// Images that one thread draws together: enough rows to fill the register tiles, few enough for
// their state to stay in the cache.
constexpr int64_t kImagesTogether = 24, kBundlesTogether = 4;
// With fewer images per thread than this, the threads share the work of each image if otherwise
// more than a share of 1 / kShare of their time would be idle.
constexpr int64_t kAlone = 4, kShare = 7;

// If other processes use the cores, the members of a team rarely run at the same time, and wait for
// each other longer than drawing alone would take. After a contended row, the next rows are drawn
// by single threads; the number of these rows doubles with each contended row in succession.
constexpr int64_t kFewestRowsAlone = 2, kMostRowsAlone = 1024;
// Shared by all callers in the process, because they share the cores.
std::atomic<int64_t> rows_alone{0}, next_rows_alone{kFewestRowsAlone};

void adapt_to_contention(bool contended) {
  const int64_t rows = next_rows_alone;
  if (contended) rows_alone = rows;
  next_rows_alone = contended ? std::min(2 * rows, kMostRowsAlone) : kFewestRowsAlone;
}

}  // namespace

const Kernel& prior_kernel(const std::string& instruction_set) {
  check_instruction_set(instruction_set);
#if defined(__x86_64__)
#if defined(PRSR_EMULATED_AMX)
  if (instruction_set == "amx-emulated") return kernel_amx_emulated;
#endif
#if defined(PRSR_AMX)
  if (instruction_set == "amx") return kernel_amx;
#endif
  if (instruction_set == "avx512bf16") return kernel_avx512bf16;
  if (instruction_set == "avx512") return kernel_avx512;
  if (instruction_set == "avx2") return kernel_avx2;
#endif
  return kernel_baseline;
}

Condition conditioning_kernel(const std::string& instruction_set) {
  check_instruction_set(instruction_set);
#if defined(__x86_64__)
  if (instruction_set == "avx512bf16" || instruction_set == "amx" ||
      instruction_set == "amx-emulated") {
    return condition_avx512bf16;  // it is in float32
  }
  if (instruction_set == "avx512") return condition_avx512;
  if (instruction_set == "avx2") return condition_avx2;
#endif
  return condition_baseline;
}

bool cores_contended() { return rows_alone.load() > 0; }

bool draw_rows(DrawRow kernel, const PriorConfig& config, const Network& network, const Job& job,
               int64_t y, int64_t end, int64_t threads, const std::function<bool()>& go_on) {
  if (job.bundles == 0) return go_on();
  // Timings of overlapping parts could not be separated.
  threads = job.seconds ? 1 : std::max<int64_t>(threads, 1);
  const int64_t most_each = (job.bundles + threads - 1) / threads;
  const int64_t idle = threads * most_each - job.bundles;
  const bool independent =
      job.bundle > 1 || job.bundles >= kAlone * threads || kShare * idle <= threads * most_each;
  std::atomic<bool> going{true};
  while (y < end && going) {
    const bool contended = rows_alone.load() > 0 && rows_alone.fetch_sub(1) > 0;
    const int64_t members = independent || contended ? 1 : std::min(threads, kMostMembers);
    const int64_t teams = std::min(threads / members, job.bundles);
    int64_t most = (job.bundles + teams - 1) / teams;
    if (members == 1) most = std::min(most, job.bundle > 1 ? kBundlesTogether : kImagesTogether);
    // Threads with images of their own synchronise after the last row, teams after every row: when
    // the thread pool returns.
    const int64_t next = independent ? end : y + 1;

    // All memory is allocated before any thread starts, so that no thread can fail while others
    // wait for it.
    std::deque<Team> all_teams;
    std::deque<Scratch> scratches;
    for (int64_t t = 0; t < teams; ++t) {
      all_teams.emplace_back(members);
      scratches.emplace_back(config, job, most);
    }
    const auto draw = [&](int64_t t, Team& team, int64_t member, int64_t first, int64_t count) {
      // A team draws one row per call, and all of its members must begin it: if a late member
      // stayed away because team 0 was told to stop, the others of its team would wait forever.
      for (int64_t row = y; row < next && (members > 1 || going); ++row) {
        kernel(config, network, job, scratches[t], team, member, row, first, count);
        if (t == 0 && member == 0 && !go_on()) going = false;
      }
    };
    const auto work = [&](int64_t worker) {
      const int64_t t = worker / members;
      const int64_t first = t * job.bundles / teams;
      draw(t, all_teams[t], worker % members, first, (t + 1) * job.bundles / teams - first);
    };
    if (teams * members == 1 || !ThreadPool::here().run(teams * members, work)) {
      Team single(1);
      draw(0, single, 0, 0, job.bundles);
    } else if (members > 1) {
      adapt_to_contention(std::any_of(all_teams.begin(), all_teams.end(),
                                      [](const Team& team) { return team.contended(); }));
    }
    y = next;
  }
  return going;
}

}  // namespace prsr
