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
  int64_t end =
      SharedLayout::of(row.channels, steps, row.level_pairs, row.tiles, vectors, cluster).end;
  const auto put = [&](int64_t bytes) {
    // Wide colours read neither. If a block reads its weights for several tiles, the memory is more
    // useful as a cache for these.
    if (steps > kNarrow || row.tiles > 1 || end + bytes > limit) return -1;
    const auto offset = static_cast<int>(end);
    end += bytes;
    return offset;
  };
  row.given_offset = put(static_cast<int64_t>(row.layers) * 2 * 6 * steps * 512);
  row.chain_offset = put(static_cast<int64_t>(row.layers) * row.channels *
                         chain_steps(steps, row.look_ahead) * vectors * 512);
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
