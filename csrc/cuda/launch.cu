// Launches on GPUs.
#include "cuda_error.h"
#include "kernels.h"
#include "shared_memory.h"

namespace prsr {

namespace {

VerticalKernel vertical_of(Format format, bool shared_loads) {
  switch (format) {
    case Format::kSplit:
      return Kernels<SplitFp16>::vertical(shared_loads);
    case Format::kFp16:
      return Kernels<Fp16>::vertical(shared_loads);
    case Format::kBf16:
      return Kernels<Bf16>::vertical(shared_loads);
    default:
      return Kernels<Tf32>::vertical(shared_loads);
  }
}

HorizontalKernel horizontal_of(Format format) {
  switch (format) {
    case Format::kSplit:
      return Kernels<SplitFp16>::horizontal();
    case Format::kFp16:
      return Kernels<Fp16>::horizontal();
    case Format::kBf16:
      return Kernels<Bf16>::horizontal();
    default:
      return Kernels<Tf32>::horizontal();
  }
}

// A launch configuration with clusters of `cluster` blocks. A cluster of one omits the attribute,
// because GPUs before sm_90 do not support clusters.
struct Configuration {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};

  Configuration(int blocks, int cluster, int shared, uint64_t stream) {
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = shared;
    config.stream = reinterpret_cast<cudaStream_t>(stream);
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
  }
};

// Queries an attribute of the current device.
int attribute_of(cudaDeviceAttr which) {
  int device, value;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

constexpr int kReserved = 1024;  // bytes per block that the system reserves

void allow(HorizontalKernel kernel, int cluster, int shared) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
  if (cluster > 8) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          "cudaFuncSetAttribute(NonPortableClusterSizeAllowed)");
  }
  // One block fills a multiprocessor's registers, so the shared memory that it does not need serves
  // as cache.
  const int whole = attribute_of(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const int share = static_cast<int>((100ll * (shared + kReserved) + whole - 1) / whole);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             share < 100 ? share : 100),
        "cudaFuncSetAttribute(PreferredSharedMemoryCarveout)");
}

}  // namespace

void use(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

int shared_limit() { return attribute_of(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

int active_clusters(Format format, int cluster, int shared) {
  if (cluster == 1) return attribute_of(cudaDevAttrMultiProcessorCount);
  if (!attribute_of(cudaDevAttrClusterLaunch)) return 0;
  const HorizontalKernel kernel = horizontal_of(format);
  allow(kernel, cluster, shared);
  const Configuration launch(cluster, cluster, shared, 0);
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, kernel, &launch.config) != cudaSuccess) {
    cudaGetLastError();  // a cluster size that the device does not support
    return 0;
  }
  return count;
}

void launch_vertical(Format format, const VerticalRow& row, bool shared_loads, uint64_t stream) {
  const Configuration launch(vertical_blocks(row), 1, 0, stream);
  check(cudaLaunchKernelEx(&launch.config, vertical_of(format, shared_loads), row),
        "cudaLaunchKernelEx(vertical_row)");
}

void launch_horizontal(Format format, const HorizontalRow& row, int cluster, int shared,
                       uint64_t stream) {
  const HorizontalKernel kernel = horizontal_of(format);
  allow(kernel, cluster, shared);
  const Configuration launch(horizontal_blocks(row, cluster), cluster, shared, stream);
  check(cudaLaunchKernelEx(&launch.config, kernel, row), "cudaLaunchKernelEx(horizontal_row)");
}

}  // namespace prsr
