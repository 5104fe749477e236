// The host's side of the kernels. Implemented by kernels.cu for GPUs, and for tests on a CPU by
// tests/engines/emulated_cuda.cpp.
#pragma once

#include "arguments.h"

namespace prsr {

enum class Precision { kFp32, kFp16, kBf16 };

// Errors of the CUDA runtime are std::runtime_error, which name the call.

// Makes a device the current one of this thread, as torch's runtime is not this one.
void use(int device);

// Bytes of shared memory that a block may have on the current device.
int shared_limit();

// Puts sums and weights that fit into shared memory, behind what must be there: sets their offsets
// for clusters of so many blocks and returns a block's bytes, which are more than `limit` if what
// must be there does not fit.
int plan_shared_memory(Precision precision, HorizontalRow& row, int cluster, int limit);

// How many such clusters the current device can run at a time; 0 where it knows none of that size.
int active_clusters(Precision precision, int cluster, int shared);

// A warp's products take one tile of positions and of outputs, or two of each where `shared_loads`
// is true: then both share what is loaded, and there is less work to divide.
void launch_vertical(Precision precision, const VerticalRow& row, bool shared_loads,
                     uint64_t stream);
void launch_horizontal(Precision precision, const HorizontalRow& row, int cluster, int shared,
                       uint64_t stream);

}  // namespace prsr
