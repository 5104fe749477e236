#include <algorithm>
#include <functional>
#include <vector>

#include "cuda_error.h"
#include "intrinsics.h"
#include "measure.h"

namespace prsr {

namespace {

constexpr int kRounds = 256;
constexpr int kMeasured = 256;  // threads per block

// Block 0 of 16 sends a vector per lane to the last `targets` blocks, and each sends one back.
__global__ void hop(int targets, int64_t* clocks) {
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(128) uint4 there[32];
  __shared__ __align__(128) uint4 back[16][32];
  __shared__ device::Barrier arrived, returned;
  const int lane = device::lane(), rank = device::rank(), first = 16 - targets;
  if (threadIdx.x == 0) {
    device::init(&arrived, 1);
    device::init(&returned, 1);
    device::arrive_expecting(&arrived, 512);
    device::arrive_expecting(&returned, 512 * targets);
    device::publish_barriers();
  }
  device::cluster_barrier();
  const int64_t start = clock64();
  for (int i = 0; i < kRounds; ++i) {
    if (rank == 0) {
      for (int to = first; to < 16; ++to) {
        device::send(&there[lane], {1, 2, 3, 4}, &arrived, to);
      }
    }
    if (rank >= first) {
      device::wait(&arrived, i & 1);
      if (threadIdx.x == 0) device::arrive_expecting(&arrived, 512);
      __syncwarp();
      device::send(&back[rank][lane], there[lane], &returned, 0);
    }
    if (rank == 0) {
      device::wait(&returned, i & 1);
      if (threadIdx.x == 0) device::arrive_expecting(&returned, 512 * targets);
      __syncwarp();
    }
  }
  if (rank == 0 && threadIdx.x == 0) *clocks = clock64() - start;
  device::cluster_barrier();
#endif
}

__global__ void barriers(int64_t* clocks) {
  device::cluster_barrier();
  const int64_t start = clock64();
  for (int i = 0; i < kRounds; ++i) device::cluster_barrier();
  if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = clock64() - start;
}

// Eight independent products per warp, repeatedly.
__global__ void products(int64_t* clocks, float* out) {
  float sums[8][4] = {};
  const uint32_t a[4] = {threadIdx.x, 0, 0, 0};
  __syncthreads();
  const int64_t start = clock64();
#pragma unroll 1
  for (int i = 0; i < kRounds; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) device::mma_fp16(sums[j], a, threadIdx.x, 0);
  }
  __syncthreads();
  if (threadIdx.x == 0) *clocks = clock64() - start;
  float sum = 0;
  for (int j = 0; j < 8; ++j) sum += sums[j][0] + sums[j][1] + sums[j][2] + sums[j][3];
  out[threadIdx.x] = sum;
}

// Every block reads the same bytes, bypassing its L1 cache.
__global__ void reads(const uint4* from, int count, int64_t* clocks, uint4* out) {
  uint4 sum = {0, 0, 0, 0};
  __syncthreads();
  const int64_t start = clock64();
  for (int lap = 0; lap < 4; ++lap) {
#pragma unroll 8
    for (int i = threadIdx.x; i < count; i += kMeasured) {
      const uint4 v = __ldcg(from + i);
      sum.x ^= v.x;
      sum.y ^= v.y;
      sum.z ^= v.z;
      sum.w ^= v.w;
    }
  }
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = clock64() - start;
  out[threadIdx.x] = sum;
}

__global__ void nothing() {}

}  // namespace

Measurements measure(uint64_t scratch, int64_t bytes, uint64_t stream_address) {
  const auto stream = reinterpret_cast<cudaStream_t>(stream_address);
  auto* const clocks = reinterpret_cast<int64_t*>(scratch);
  auto* const out = reinterpret_cast<float*>(scratch + 1024);
  auto* const data = reinterpret_cast<uint4*>(scratch + 65536);
  int device, processors, clusters;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute(MultiProcessorCount)");
  check(cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device),
        "cudaDeviceGetAttribute(ClusterLaunch)");
  Measurements result;
  const auto add = [&](const std::string& name, double value) { result.emplace_back(name, value); };
  // The second of two launches is measured.
  const auto clocks_of = [&](const std::function<void()>& launch) {
    int64_t taken = 0;
    for (int i = 0; i < 2; ++i) {
      launch();
      check(cudaGetLastError(), "a measuring kernel's launch");
      check(cudaMemcpyAsync(&taken, clocks, sizeof taken, cudaMemcpyDeviceToHost, stream),
            "cudaMemcpyAsync");
      check(cudaStreamSynchronize(stream), "a measuring kernel");
    }
    return static_cast<double>(taken);
  };
  if (clusters) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {16, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(16);
    config.blockDim = dim3(32);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cudaFuncSetAttribute(hop, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    cudaFuncSetAttribute(barriers, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    int active = 0;
    if (cudaOccupancyMaxActiveClusters(&active, hop, &config) == cudaSuccess && active > 0) {
      for (const int targets : {1, 16}) {
        add("hop to " + std::to_string(targets),
            clocks_of([&] { cudaLaunchKernelEx(&config, hop, targets, clocks); }) / kRounds / 2);
      }
      add("cluster barrier",
          clocks_of([&] { cudaLaunchKernelEx(&config, barriers, clocks); }) / kRounds);
    }
    cudaGetLastError();
  }
  const double steps = 8.0 * kRounds * kMeasured / 32;
  add("MAC a clock",
      steps * 16 * 8 * 16 / clocks_of([&] { products<<<1, kMeasured, 0, stream>>>(clocks, out); }));
  const int count = 1 << 16;  // 1 MiB
  if (bytes >= 65536 + 16 * static_cast<int64_t>(count)) {
    for (const bool all : {false, true}) {
      const int blocks = all ? processors : 1;
      add(all ? "L2 bytes a clock, all" : "L2 bytes a clock, one",
          4.0 * 16 * count / clocks_of([&] {
            reads<<<blocks, kMeasured, 0, stream>>>(data, count, clocks,
                                                    reinterpret_cast<uint4*>(out));
          }));
    }
  }
  cudaEvent_t start, end;
  check(cudaEventCreate(&start), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  nothing<<<1, 32, 0, stream>>>();
  check(cudaEventRecord(start, stream), "cudaEventRecord");
  for (int i = 0; i < kRounds; ++i) nothing<<<1, 32, 0, stream>>>();
  check(cudaEventRecord(end, stream), "cudaEventRecord");
  check(cudaEventSynchronize(end), "cudaEventSynchronize");
  float milliseconds;
  check(cudaEventElapsedTime(&milliseconds, start, end), "cudaEventElapsedTime");
  add("launch gap, us", 1e3 * milliseconds / kRounds);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  return result;
}

}  // namespace prsr
