// The module _cuda with kernels that run on the CPU, by emulation.h, on CPU tensors. The
// include path must contain the folder of the kernels: csrc/cuda or a mutant of it.
#include "bindings.cpp"
#include "shared_memory.h"
#include "vertical.h"

namespace prsr {

namespace {

// Seed of the fiber schedule, changed at each launch.
uint32_t launches = 0;

template <typename P>
void run_vertical(const VerticalRow& row, bool shared_loads) {
  emulation::launch(vertical_blocks(row), 1, kThreads, 0, launches++, [&] {
    if (shared_loads) {
      vertical_row<P, 2, 2>(row);
    } else {
      vertical_row<P, 1, 1>(row);
    }
  });
}

template <typename P>
void run_horizontal(const HorizontalRow& row, int cluster, int shared) {
  emulation::launch(horizontal_blocks(row, cluster), cluster, kThreads, shared, launches++, [&] {
    PRSR_SHARED(memory);
    horizontal_row<P>(row, memory);
  });
}

}  // namespace

std::string cuda_version() { return "emulated"; }
std::vector<std::string> architectures() { return {"sm_90"}; }
std::vector<Device> devices() { return {}; }

Measurements measure(uint64_t, int64_t, uint64_t) { return {}; }

void use(int) {}

// As on an H100, with enough clusters that each has one tile if there are few tiles.
int shared_limit() { return 227 * 1024; }
int active_clusters(Format, int cluster, int) { return 132 / cluster; }

void launch_vertical(Format format, const VerticalRow& row, bool shared_loads, uint64_t) {
  switch (format) {
    case Format::kSplit:
      return run_vertical<SplitFp16>(row, shared_loads);
    case Format::kFp16:
      return run_vertical<Fp16>(row, shared_loads);
    case Format::kBf16:
      return run_vertical<Bf16>(row, shared_loads);
    default:
      return run_vertical<Tf32>(row, shared_loads);
  }
}

void launch_horizontal(Format format, const HorizontalRow& row, int cluster, int shared, uint64_t) {
  switch (format) {
    case Format::kSplit:
      return run_horizontal<SplitFp16>(row, cluster, shared);
    case Format::kFp16:
      return run_horizontal<Fp16>(row, cluster, shared);
    case Format::kBf16:
      return run_horizontal<Bf16>(row, cluster, shared);
    default:
      return run_horizontal<Tf32>(row, cluster, shared);
  }
}

}  // namespace prsr
