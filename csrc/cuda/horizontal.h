// The horizontal stack, the head and the draws of one row: one launch draws all its sub-pixels.
//
//   leader of a tile                                      every block with levels
//     warp 0: chain(n), send features            ──────▶   head(): hidden units and logits of its
//     other warps meanwhile: early(n + 1)                  levels for each tile, sent to the
//     late(n + 1)                                ◀──────   tile's leader
//     draw a level for each image
//
// Blocks wait for each other in two places, each at a barrier that counts bytes; all other order is
// by block barriers. A cluster of one sends nothing: its head reads the features where the chain
// stored them. Colours too wide for the registers go through wide_chain(), by all warps.
//
// One buffer for features and one for logits suffice. A leader sends features n + 1 after drawing
// n, hence after receiving the logits n of every block with levels, and a block sends these only
// after all its warps have read features n. A block sends logits n + 1 after receiving features n +
// 1, which the leader sends only after its warps have read logits n.
#pragma once

#include "chain.h"
#include "draw.h"
#include "head.h"
#include "look_ahead.h"

namespace prsr {

// Draws a value for each of the tile's images; the warps take turns.
template <typename P>
PRSR_DEVICE void draw_values(const RowContext<P>& r, int n) {
  const int x = n / r.a.channels, colour = n % r.a.channels;
  const int live = r.live_images();
  for (int row = r.warp; row < live; row += kWarps) {
    float sums[kLaneLevels];
    const float4* const tile = r.logits(r.lane < 2 * r.a.level_pairs ? r.lane : 0) + row % 8 * 4;
#pragma unroll
    for (int i = 0; i < kLaneLevels / 2; ++i) {
      const float2 both = reinterpret_cast<const float2*>(tile + i)[row / 8];
      sums[2 * i] = both.x;
      sums[2 * i + 1] = both.y;
    }
#pragma unroll
    for (int i = 0; i < kLaneLevels; ++i) {
      const int level = kLaneLevels * r.lane + i;
      if (level < r.a.levels) sums[i] += r.start()[row * 16 * r.a.level_pairs + level];
    }
    int level = draw(sums, r.a.levels, r.noise()[row], r.temperature()[row]);
    if (r.known()[row] >= 0) level = r.known()[row];
    if (r.lane == 0) {
      r.a.image[r.image_index(row, x, colour)] = static_cast<uint8_t>(level);
      const float value = static_cast<float>(level) / static_cast<float>(r.a.levels - 1) - 0.5f;
      r.value(row, x + r.a.first_reach)[colour] = value;
      r.drawn()[row] = value;
    }
  }
}

// For benchmarks: adds up the clock cycles of each phase.
struct Stopwatch {
  int64_t* const clocks;  // null except in one thread of one block, if measuring
  int64_t before;

  PRSR_DEVICE explicit Stopwatch(int64_t* wanted)
      : clocks(device::block() == 0 && device::thread() == 0 ? wanted : nullptr), before(0) {
    if (clocks != nullptr) before = device::clock();
  }
  PRSR_DEVICE void ends(Phase phase) {
    if (clocks == nullptr) return;
    const int64_t now = device::clock();
    clocks[phase] += now - before;
    before = now;
  }
};

template <typename P>
PRSR_DEVICE int features_bytes(const RowContext<P>& r) {
  return static_cast<int>(vectors<P>(r.a.group_steps)) * 16;
}
template <typename P>
PRSR_DEVICE int logits_bytes(const RowContext<P>& r) {
  return r.a.level_pairs * 2 * 512;
}

// Copies `rows` rows of `size` vectors, `stride` apart, by all threads of the block.
PRSR_DEVICE void copy_rows(uint4* to, const uint4* from, int rows, int size, int64_t stride,
                           int thread) {
#pragma unroll 4
  for (int i = thread; i < rows * size; i += kThreads) to[i] = from[i / size * stride + i % size];
}

// Copies the weights of the head that this block holds in shared memory.
template <typename P>
PRSR_DEVICE void copy_head(const RowContext<P>& r) {
  const int units = r.a.unit_steps;
  for (int colour = 0; colour < r.a.channels && r.pairs > 0; ++colour) {
    if (r.holds_output(colour)) {
      copy_rows(r.shared_output(colour, 0), r.global_output(colour, 0), r.pairs,
                static_cast<int>(vectors<P>((colour + 1) * units)),
                r.global_output(colour, 1) - r.global_output(colour, 0), r.thread);
    }
    if (r.holds_hidden()) {
      copy_rows(r.shared_hidden(colour, 0), r.global_hidden(colour, 0), units,
                static_cast<int>(vectors<P>((colour + 1) * r.a.group_steps)),
                r.global_hidden(colour, 1) - r.global_hidden(colour, 0), r.thread);
    }
  }
}

// Fills shared memory and initialises the barriers between blocks.
template <typename P>
PRSR_DEVICE void begin(const RowContext<P>& r) {
  if (r.leads) {
    if (r.a.chain_offset >= 0) {
      const int64_t steps = chain_steps(r.a.group_steps, r.a.look_ahead);
      copy_rows(reinterpret_cast<uint4*>(r.memory + r.a.chain_offset), r.a.chain, 1,
                static_cast<int>(vectors<P>(steps * r.a.layers * r.a.channels)), 0, r.thread);
    }
    if (r.thread < r.live_images()) r.temperature()[r.thread] = r.a.temperature[r.image(r.thread)];
    // The value before the first sub-pixel of the row is outside the image.
    if (r.thread < kImages) r.drawn()[r.thread] = 0;
    if (!r.wide()) early(r, 0, r.warp, kWarps);
  }
  copy_head(r);
  if (r.sends && r.thread == 0) {
    device::init(r.logits_arrived(), 1);
    if (r.leads) device::arrive_expecting(r.logits_arrived(), logits_bytes(r));
    for (int t = 0; t < r.cluster_tiles; ++t) {
      device::init(r.features_arrived(t), 1);
      device::arrive_expecting(r.features_arrived(t), features_bytes(r));
    }
    device::publish_barriers();
  }
  if (r.sends) {
    // Nothing may be sent before every block runs and has initialised its barriers. Also orders the
    // block's own writes above.
    device::cluster_barrier();
  } else {
    // Orders all writes above before the reads by other warps.
    device::block_barrier();
  }
}

// The chain of colours of S steps, by one warp. Gates of the tile's second half are omitted if it
// has no images there: they would take as long as those of the first.
template <typename P, int S>
PRSR_DEVICE void narrow_chain(const RowContext<P>& r, int n) {
  const bool half = r.live_images() <= kImages / 2;
  if constexpr (S <= P::kLookAheadSteps) {
    if (r.a.look_ahead) {
      return half ? look_ahead_chain<P, S, 1>(r, n) : look_ahead_chain<P, S, 2>(r, n);
    }
  }
  half ? chain<P, S, 1>(r, n) : chain<P, S, 2>(r, n);
}

template <typename P>
PRSR_DEVICE void horizontal_row(const HorizontalRow& a, unsigned char* shared) {
  const RowContext<P> r(a, shared);
  begin(r);
  Stopwatch watch(a.clocks);
  int half = 0;
  for (int n = 0; n < r.sub_pixels(); ++n) {
    const uint32_t parity = n & 1;
    if (r.leads) {
      if (r.wide()) {
        prepare_draw(r, n, r.thread, kThreads);
        wide_chain(r, n);
      } else if (r.warp > 0) {
        prepare_draw(r, n, r.thread - 32, kThreads - 32);
        if (n + 1 < r.sub_pixels()) early(r, n + 1, r.warp - 1, kWarps - 1);
      } else if (a.group_steps == 1) {
        narrow_chain<P, 1>(r, n);
      } else {
        narrow_chain<P, 2>(r, n);
      }
      watch.ends(kChain);
      // Orders the writes of chain(), early() and prepare_draw() before the reads by head(), late()
      // and draw_values().
      device::block_barrier();
      watch.ends(kSums);
    }
    if (r.pairs > 0) {
      for (int t = 0; t < r.cluster_tiles; ++t) {
        const uint4* features = r.received(t);
        if (r.sends) {
          device::wait(r.features_arrived(t), parity);
          // For the next sub-pixel; its features arrive after this block has sent its logits.
          if (r.thread == 0) device::arrive_expecting(r.features_arrived(t), features_bytes(r));
        } else {
          features = r.kept(a.layers, n / a.channels) + vectors<P>(a.reach * r.colour_steps());
        }
        head(r, features, t, n % a.channels, half);
      }
      watch.ends(kHead);
    }
    if (r.leads) {
      if (!r.wide() && n + 1 < r.sub_pixels()) late(r, n + 1);
      watch.ends(kLate);
      if (r.sends) {
        device::wait(r.logits_arrived(), parity);
        // For the next sub-pixel; its logits arrive after this block has sent features.
        if (r.thread == 0) device::arrive_expecting(r.logits_arrived(), logits_bytes(r));
      } else {
        // Orders the writes of the logits before draw_values() reads them.
        device::block_barrier();
      }
      watch.ends(kLogits);
      draw_values(r, n);
      // Orders the writes of draw_values() and late() before the reads in the next round, and the
      // reads of logits and of prepare_draw()'s results before these are overwritten.
      device::block_barrier();
      watch.ends(kDraw);
    }
  }
}

}  // namespace prsr
