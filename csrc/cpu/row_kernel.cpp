// Draws one row of images: the vertical stack for all pixels at once, then pixel by pixel the
// horizontal stack, the head and the draw. Compiled once per instruction set, under the name
// PRSR_KERNEL.
//
// Every multiply-add of the network is computed exactly once per image, in gemm.h or bundle_gemm.h.
// The network is that of van den Oord et al. (arXiv 1606.05328), the caching that of Ramachandran
// et al. (arXiv 1704.06001).
#include <chrono>

#include "horizontal.h"
#include "vertical.h"

namespace {

// Adds its lifetime to one part of the job's timings, if these are requested.
class Stopwatch {
 public:
  using Clock = std::chrono::steady_clock;
  Stopwatch(double* seconds, prsr::Part part) : seconds_(seconds ? seconds + part : nullptr) {
    if (seconds_) start_ = Clock::now();
  }
  ~Stopwatch() {
    if (seconds_) *seconds_ += std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  double* const seconds_;
  Clock::time_point start_;
};

// The work of one member on one row of some images.
//
// The sub-pixels form one long dependency chain. A single thread simply follows it. In a team,
// member 0 leads: it follows the chain from the first layer to the hidden units. The rest of a
// sub-pixel, the GEMM of the hidden units with the large matrix of the head, is shared. While the
// helpers wait for hidden units, they add up the contributions of earlier colours, and precompute
// partial sums of the next row's vertical stack. Both are needed only later: messages between cores
// are slow, half a microsecond for a round trip on some machines. Every sum has its terms in the
// same order as on a single thread, so the result is bit-identical.
template <typename Operand>
class RowOfImages : RowContext {
 public:
  explicit RowOfImages(const RowContext& context)
      : RowContext(context),
        vertical(context),
        horizontal(context),
        seconds(context.member == 0 ? context.j.seconds : nullptr) {}

  void draw() {
    {
      const Stopwatch watch(seconds, prsr::kVertical);
      vertical.compute_row();
    }
    if (team.size() == 1) {
      alone(0);
    } else if (member == 0) {
      lead();
    } else {
      help();
    }
  }

 private:
  // Draws the pixels from x on without helpers.
  void alone(int64_t x) {
    for (; x < j.width; ++x) {
      {
        const Stopwatch watch(seconds, prsr::kHorizontal);
        horizontal.add_taps(x);
      }
      for (int64_t g = 0; g < c.channels; ++g) {
        {
          const Stopwatch watch(seconds, prsr::kHorizontal);
          horizontal.chain(x, g);
        }
        {
          const Stopwatch watch(seconds, prsr::kHead);
          horizontal.hidden_units(x, g);
          horizontal.add_units(x, g, 0, g + 1, 0, -1);
        }
        {
          const Stopwatch watch(seconds, prsr::kDraw);
          horizontal.draw_sub_pixel(x, g);
        }
      }
    }
  }

  void lead() {
    s.claims[0].begin(0);
    for (int64_t x = 0; x < j.width; ++x) {
      if (team.contended()) {
        team.dismiss();
        team.count(0, Team::kDone);
        team.wait_for_helpers(Team::kLeft, 1);
        return alone(x);
      }
      horizontal.add_taps(x);
      for (int64_t g = 0; g < c.channels; ++g) {
        const int64_t now = x * c.channels + g;
        Claims& claims = s.claims[now % 2];
        horizontal.chain(x, g);
        horizontal.hidden_units(x, g);
        s.claims[(now + 1) % 2].begin(now + 1);
        team.count(0, Team::kDone);
        for (int64_t b = claims.blocks() - 1; b >= 0; --b) compute_block(x, g, b);
        for (int64_t b = claims.blocks() - 1; b >= 0; --b) {
          while (!claims.is_done(b)) {
            team.wait_while_busy(claims, b);
            compute_block(x, g, b);
          }
        }
        horizontal.draw_sub_pixel(x, g);
      }
    }
    while (vertical.work_ahead()) {
    }
    vertical.note_work_ahead();
  }

  void help() {
    // A single helper is busy enough with the rest; the leader would wait for its late halves.
    const bool late_halves = team.size() > 2 || c.channels == 1;
    for (int64_t x = 0; x < j.width; ++x) {
      for (int64_t g = 0; g < c.channels; ++g) {
        const int64_t now = x * c.channels + g;
        Claims& claims = s.claims[now % 2];
        const auto ready = [&] { return team.has(0, Team::kDone, now + 1); };
        for (int64_t b = 0; b < claims.blocks() && g > 0; ++b) {
          if (!claims.take_early(now, b)) continue;
          horizontal.add_units(x, g, 0, g, b, b + 1);
          claims.early_done(now, b);
        }
        while (!ready() && vertical.work_ahead()) {
        }
        team.wait(0, Team::kDone, now + 1);
        if (team.dismissed()) return team.count(member, Team::kLeft);
        for (int64_t b = 0; b < claims.blocks() && late_halves; ++b) compute_block(x, g, b);
      }
    }
    while (vertical.work_ahead()) {
    }
  }

  // Computes what is left of a block of the logits, unless another member does.
  void compute_block(int64_t x, int64_t g, int64_t block) {
    const int64_t now = x * c.channels + g;
    Claims& claims = s.claims[now % 2];
    const Claims::State state = claims.take(now, block);
    if (state == Claims::kTaken) return;
    horizontal.add_units(x, g, state == Claims::kFree ? 0 : g, g + 1, block, block + 1);
    claims.done(now, block);
  }

  VerticalStack<Operand> vertical;
  HorizontalStack<Operand> horizontal;
  double* const seconds;
};

void draw_row(const PriorConfig& config, const Network& network, const Job& job,
              const Scratch& scratch, Team& team, int64_t member, int64_t y, int64_t first,
              int64_t count) {
  if constexpr (kTiles) {
    // Tiles multiply pairs of bfloat16 only.
    if (!config.bf16) {
      return prsr::kernel_avx512bf16.draw_row(config, network, job, scratch, team, member, y, first,
                                              count);
    }
  }
  Tiles tiles;
  // At most as many bundles at a time as the working memory holds, in equal parts.
  for (int64_t parts = (count + scratch.bundles - 1) / scratch.bundles; parts > 0; --parts) {
    const int64_t n = (count + parts - 1) / parts;
    const RowContext context(config, network, job, scratch, tiles, team, member, y, first, n);
    if constexpr (kTiles) {
      RowOfImages<Pair>(context).draw();
    } else {
      config.bf16 ? RowOfImages<Pair>(context).draw() : RowOfImages<float>(context).draw();
    }
    first += n;
    count -= n;
  }
}

}  // namespace

namespace prsr {

const Kernel PRSR_KERNEL = {draw_row, kRowStrip, kPixelStrip, kTiles};

}  // namespace prsr
