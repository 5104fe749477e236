#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <deque>

#include "crew.h"

namespace prsr {

namespace {

// Images that are drawn together: enough rows for full tiles, few enough to stay in the cache.
constexpr int64_t kTogether = 24, kBundlesTogether = 4;
// With fewer images a thread, threads do better to share each image's work.
constexpr int64_t kAlone = 4;

// Where others want the cores too, members are rarely at work at the same time, and wait for each
// other far longer than it takes to do the work alone. After a row of which that was true, so many
// rows are drawn by single threads, and twice as many each time that it is true again at once.
constexpr int64_t kFewestRowsAlone = 2, kMostRowsAlone = 1024;
// All callers in the process share this, for they share the cores.
std::atomic<int64_t> rows_alone{0}, next_rows_alone{kFewestRowsAlone};

void remember(bool contended) {
  const int64_t rows = next_rows_alone;
  if (contended) rows_alone = rows;
  next_rows_alone = contended ? std::min(2 * rows, kMostRowsAlone) : kFewestRowsAlone;
}

std::vector<InstructionSet> find_instruction_sets() {
#if defined(__x86_64__)
  std::vector<InstructionSet> sets = {{"baseline", kernel_baseline, condition_baseline}};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back({"avx2", kernel_avx2, condition_avx2});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      sets.push_back({"avx512", kernel_avx512, condition_avx512});
    }
  }
  return sets;
#elif defined(__aarch64__)
  return {{"neon", kernel_baseline, condition_baseline}};
#else
  return {{"baseline", kernel_baseline, condition_baseline}};
#endif
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> sets = find_instruction_sets();
  return sets;
}

bool cores_contended() { return rows_alone.load() > 0; }

bool draw_rows(DrawRow kernel, const Config& config, const Network& network, const Job& job,
               int64_t y, int64_t end, int64_t threads, const std::function<bool()>& go_on) {
  if (job.bundles == 0) return go_on();
  // Parts of the work that overlap could not be told apart.
  threads = job.seconds ? 1 : std::max<int64_t>(threads, 1);
  const bool plenty = job.bundle > 1 || job.bundles >= kAlone * threads;
  std::atomic<bool> going{true};
  while (y < end && going) {
    const bool contended = rows_alone.load() > 0 && rows_alone.fetch_sub(1) > 0;
    const int64_t members = plenty || contended ? 1 : std::min(threads, kMostMembers);
    const int64_t teams = std::min(threads / members, job.bundles);
    int64_t most = (job.bundles + teams - 1) / teams;
    if (members == 1) most = std::min(most, job.bundle > 1 ? kBundlesTogether : kTogether);
    // Threads that have images of their own meet after the last row, a team after each: the call
    // of the crew is that meeting.
    const int64_t next = plenty ? end : y + 1;

    // All memory is had before the first thread: none can fail while others wait for it.
    std::deque<Team> all_teams;
    std::deque<Scratch> scratches;
    for (int64_t t = 0; t < teams; ++t) {
      all_teams.emplace_back(members);
      scratches.emplace_back(config, job.width, most, job.bundle);
    }
    const auto draw = [&](int64_t t, Team& team, int64_t member, int64_t first, int64_t count) {
      // A team has one row, which all of its members begin: a late one who stayed away because team
      // 0 has been told to stop would leave the others of its own waiting for ever.
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
    if (teams * members == 1 || !Crew::here().run(teams * members, work)) {
      Team single(1);
      draw(0, single, 0, 0, job.bundles);
    } else if (members > 1) {
      remember(std::any_of(all_teams.begin(), all_teams.end(),
                           [](const Team& team) { return team.contended(); }));
    }
    y = next;
  }
  return going;
}

}  // namespace prsr
