// plan_shared_memory() of launch.h, and other sizes that the host computes. Included once.
#pragma once

#include "horizontal.h"
#include "launch.h"
#include "mma_fp32.h"

namespace prsr {

inline int vectors_of(Format format) {
  const bool two = format == Format::kTf32 || format == Format::kSplit;
  return two ? SplitFp16::kVectors : Bf16::kVectors;
}

int plan_shared_memory(Format format, HorizontalRow& row, int cluster, int limit) {
  const int vectors = vectors_of(format), steps = row.group_steps;
  const int64_t step = vectors * 512, all = head_steps(row.channels);
  const int64_t given = static_cast<int64_t>(row.layers) * 2 * 6 * steps * 512;
  const int64_t chain =
      static_cast<int64_t>(row.layers) * row.channels * chain_steps(steps, row.look_ahead) * step;
  const int64_t hidden = row.unit_steps * all * steps * step;
  int64_t end =
      SharedLayout::of(row.channels, steps, row.level_pairs, row.tiles, vectors, cluster).end;
  const auto fits = [&](int64_t bytes) { return end + bytes <= limit; };
  // Wide colours have neither sums nor weights of the chain here. For a single tile, the sums are
  // read most often, so the output has what they leave, if they fit at all. For several tiles, the
  // output is read by each, and comes first. Its last colours have the most weights.
  const bool narrow = steps <= kNarrow;
  const int64_t reserved = narrow && row.tiles == 1 && fits(given) ? given : 0;
  const int64_t units = share_of(row.level_pairs, cluster) * row.unit_steps * step;
  const auto output = [&](int from) { return units * (all - head_steps(from)); };
  row.output_colour = 0;
  while (row.output_colour < row.channels && !fits(reserved + output(row.output_colour))) {
    ++row.output_colour;
  }
  row.output_offset = static_cast<int>(end);
  end += output(row.output_colour);
  // Blocks that lead a tile and the others need different arrays, in the same place.
  const auto place = static_cast<int>(end);
  const int64_t sums = narrow && fits(given) ? given : 0;
  row.given_offset = sums ? place : -1;
  row.chain_offset = narrow && fits(sums + chain) ? place + static_cast<int>(sums) : -1;
  row.hidden_offset = row.tiles < cluster && fits(hidden) ? place : -1;
  const int64_t leading = sums + (row.chain_offset >= 0 ? chain : 0);
  const int64_t other = row.hidden_offset >= 0 ? hidden : 0;
  end += leading > other ? leading : other;
  return end > limit ? limit + 1 : static_cast<int>(end);
}

inline int cluster_tiles(const HorizontalRow& row) { return (row.images + kImages - 1) / kImages; }

// The number of blocks in each grid.
inline int vertical_blocks(const VerticalRow& row) {
  return (row.images + row.images_per_block - 1) / row.images_per_block;
}
inline int horizontal_blocks(const HorizontalRow& row, int cluster) {
  return (cluster_tiles(row) + row.tiles - 1) / row.tiles * cluster;
}

}  // namespace prsr
