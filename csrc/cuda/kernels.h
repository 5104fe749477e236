// The kernels of one operand format. Each is a translation unit of its own, so that they
// compile in parallel.
#pragma once

#include "horizontal.h"
#include "mma_fp32.h"
#include "vertical.h"

namespace prsr {

using VerticalKernel = void (*)(const VerticalRow);
using HorizontalKernel = void (*)(const HorizontalRow);

template <typename P>
struct Kernels {
  static VerticalKernel vertical(bool shared_loads);
  static HorizontalKernel horizontal();
};

#if defined(PRSR_DEFINE_KERNELS)

template <typename P, int Tiles, int Pairs>
PRSR_KERNEL(kThreads)
vertical_kernel(const __grid_constant__ VerticalRow row) {
  vertical_row<P, Tiles, Pairs>(row);
}

template <typename P>
PRSR_KERNEL(kThreads)
horizontal_kernel(const __grid_constant__ HorizontalRow row) {
  PRSR_SHARED(memory);
  horizontal_row<P>(row, memory);
}

template <typename P>
VerticalKernel Kernels<P>::vertical(bool shared_loads) {
  return shared_loads ? vertical_kernel<P, 2, 2> : vertical_kernel<P, 1, 1>;
}

template <typename P>
HorizontalKernel Kernels<P>::horizontal() {
  return horizontal_kernel<P>;
}

#endif

}  // namespace prsr
