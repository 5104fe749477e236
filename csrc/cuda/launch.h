// The host interface of the kernels. launch.cu implements it for GPUs, and
// tests/engines/emulated_cuda.cpp on a CPU, for tests.
#pragma once

#include "arguments.h"

namespace prsr {

// Formats of operands: fp32 as two tf32 or as two fp16 numbers (mma_fp32.h), fp16 and bf16 (mma.h).
enum class Format { kTf32, kSplit, kFp16, kBf16 };

// These functions throw on errors of the CUDA runtime, naming the call: OutOfMemory, or
// std::runtime_error for all others (cuda_error.h).

// Selects this thread's current device; needed because torch's copy of the runtime is a different
// one.
void use(int device);

// The most bytes of shared memory per block on the current device.
int shared_limit();

// Decides which sums and weights go into shared memory, after the arrays that must be there: sets
// the offsets in `row` for clusters of `cluster` blocks and returns the bytes per block. The result
// exceeds `limit` if the mandatory arrays do not fit.
int plan_shared_memory(Format format, HorizontalRow& row, int cluster, int limit);

// The number of such clusters that run concurrently on the current device; 0 if it does not support
// that cluster size.
int active_clusters(Format format, int cluster, int shared);

// A warp computes one tile of positions and outputs, or two of each if `shared_loads` is true: then
// tiles share loads, and there are fewer units of work.
void launch_vertical(Format format, const VerticalRow& row, bool shared_loads, uint64_t stream);
void launch_horizontal(Format format, const HorizontalRow& row, int cluster, int shared,
                       uint64_t stream);

}  // namespace prsr
