#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <deque>

#include "crew.h"

namespace prsr {

namespace {

// Images that are drawn together: enough rows for full tiles, few enough to stay in the cache.
constexpr int64_t kTogether = 24;
// With fewer images a thread, threads do better to share each picture's work …
constexpr int64_t kAlone = 4;
// … but no more of them than this, for they wait for each other six times a pixel.
constexpr int64_t kTeam = 4;

// Where others want the cores too, members are rarely at work at the same time, and wait for each
// other far longer than it takes to do the work alone. A row with more yields than this …
constexpr int64_t kPatience = 8;
// … is followed by so many of which every picture is one thread's.
constexpr int64_t kRowsAlone = 64;
std::atomic<int64_t> rows_alone{0};

std::vector<InstructionSet> find_instruction_sets() {
#if defined(__x86_64__)
  std::vector<InstructionSet> sets = {{"baseline", draw_row_baseline}};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back({"avx2", draw_row_avx2});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      sets.push_back({"avx512", draw_row_avx512});
    }
  }
  return sets;
#elif defined(__aarch64__)
  return {{"neon", draw_row_baseline}};
#else
  return {{"baseline", draw_row_baseline}};
#endif
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> sets = find_instruction_sets();
  return sets;
}

void draw_row(DrawRow kernel, const Config& config, const Network& network, const Job& job,
              int64_t y, int64_t threads) {
  if (job.images == 0) return;
  threads = std::max<int64_t>(threads, 1);
  const bool contended = rows_alone.load() > 0 && rows_alone.fetch_sub(1) > 0;
  const bool alone = contended || job.images >= kAlone * threads;
  const int64_t members = alone ? 1 : std::min(threads, kTeam);
  const int64_t teams = std::min(threads / members, job.images);
  const int64_t most = std::min((job.images + teams - 1) / teams, kTogether);

  // All memory is had before the first thread: none can fail while others wait for it.
  std::deque<Team> all_teams;
  std::deque<Scratch> scratches;
  for (int64_t t = 0; t < teams; ++t) {
    all_teams.emplace_back(members);
    scratches.emplace_back(config, job.width, most);
  }
  const auto work = [&](int64_t worker) {
    const int64_t t = worker / members;
    const int64_t first = t * job.images / teams;
    kernel(config, network, job, scratches[t], all_teams[t], worker % members, y, first,
           (t + 1) * job.images / teams - first);
  };
  if (teams * members == 1 || !Crew::here().run(teams * members, work)) {
    Team single(1);
    kernel(config, network, job, scratches[0], single, 0, y, 0, job.images);
  }
  for (const Team& team : all_teams) {
    if (team.yields() > kPatience) rows_alone = kRowsAlone;
  }
}

}  // namespace prsr
