// One function for each instruction that is not standard C++. The kernels use nothing else of CUDA,
// so that tests/engines/emulation.h, which implements the same functions, can run them on a CPU.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>

#define PRSR_DEVICE __device__ __forceinline__
#define PRSR_BOTH __host__ __device__ __forceinline__
#define PRSR_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
// Declares the block's dynamic shared memory.
#define PRSR_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

namespace prsr::device {

PRSR_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
PRSR_DEVICE int lane() { return static_cast<int>(threadIdx.x & 31); }
// Through a shuffle, so that the compiler knows that the value is uniform in a warp.
PRSR_DEVICE int warp() { return __shfl_sync(~0u, static_cast<int>(threadIdx.x >> 5), 0); }
PRSR_DEVICE int block() { return static_cast<int>(blockIdx.x); }
PRSR_DEVICE int64_t clock() { return clock64(); }

// Barrier for all threads of the block; earlier writes of any thread become visible to all.
PRSR_DEVICE void block_barrier() { __syncthreads(); }

// Collective: all lanes of a warp must call these together.
PRSR_DEVICE float shuffle(float value, int from) { return __shfl_sync(~0u, value, from); }
PRSR_DEVICE float shuffle_up(float value, int by) { return __shfl_up_sync(~0u, value, by); }
PRSR_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
PRSR_DEVICE uint32_t ballot(bool value) { return __ballot_sync(~0u, value); }

PRSR_DEVICE int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
PRSR_DEVICE int highest_bit(uint32_t bits) { return 31 - __clz(static_cast<int>(bits)); }
PRSR_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
PRSR_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

// d += a·b, collective over a warp. The product has 16 rows, 8 columns and 16 inputs (8 for tf32).
// In d, lane l holds rows l/4 and l/4 + 8, columns 2(l%4) and 2(l%4) + 1: {d0, d1} and {d2, d3}.
PRSR_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
PRSR_DEVICE void mma_fp16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
PRSR_DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to nearest bf16 or fp16, the first in the lower half.
PRSR_DEVICE uint32_t pack_bf16(float lower, float upper) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(upper), "f"(lower));
  return both;
}
PRSR_DEVICE uint32_t pack_fp16(float lower, float upper) {
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(upper), "f"(lower));
  return both;
}
// The lower and the upper of two packed fp16 numbers.
PRSR_DEVICE float lower_fp16(uint32_t both) {
  float x;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(x) : "r"(both));
  return x;
}
PRSR_DEVICE float upper_fp16(uint32_t both) { return lower_fp16(both >> 16); }
// Rounds to nearest tf32 and returns the bits.
PRSR_DEVICE uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// The larger of x and 0, and the smaller of x and `most`. NaN becomes a number; in the emulation it
// stays NaN, so that poison shows.
PRSR_DEVICE float positive(float x) { return x > 0 ? x : 0; }
PRSR_DEVICE float at_most(float x, float most) { return x < most ? x : most; }

// 2^x and 1/x with errors up to 2 and 1 units in the last place, tanh with 2^-11; denormals are
// flushed to zero.
PRSR_DEVICE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
PRSR_DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
PRSR_DEVICE float tanh_approximate(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#if __CUDA_ARCH__ >= 900

constexpr bool kClusters = true;

// The block's rank in its cluster, and the number of blocks in a cluster.
PRSR_DEVICE int rank() {
  uint32_t r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return static_cast<int>(r);
}
PRSR_DEVICE int ranks() {
  uint32_t r;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
  return static_cast<int>(r);
}
// Barrier for all threads of the cluster.
PRSR_DEVICE void cluster_barrier() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// A barrier in shared memory (mbarrier). A phase ends when all arrivals and bytes that it expects
// have come in, and the next begins; phases are distinguished by the parity of their number.
using Barrier = uint64_t;

PRSR_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
PRSR_DEVICE void init(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes initialised barriers visible to the other blocks of the cluster; called before a cluster
// barrier.
PRSR_DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives once, and adds `bytes` to those that this phase waits for.
PRSR_DEVICE void arrive_expecting(Barrier* barrier, int bytes) {
  asm volatile(
      "{.reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;}" ::"r"(
          shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Acquires at the scope of the block, as CUTLASS's barriers for clusters do.
PRSR_DEVICE bool over(Barrier* barrier, uint32_t parity) {
  uint32_t result;
  asm volatile(
      "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
      : "=r"(result)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return result;
}
PRSR_DEVICE uint64_t nanoseconds() {
  uint64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
constexpr uint64_t kPatience = 10'000'000'000;
// Waits for the end of the phase of that parity; what was sent can then be read. A wait normally
// lasts microseconds: after ten seconds the kernel traps, because it would hang otherwise.
PRSR_DEVICE void wait(Barrier* barrier, uint32_t parity) {
  if (over(barrier, parity)) return;
  const uint64_t start = nanoseconds();
  while (!over(barrier, parity)) {
    if (nanoseconds() - start > kPatience) __trap();
  }
}
// Stores 16 bytes at the same offset in another block's shared memory and counts them on the
// barrier there. `to` and `barrier` are addresses in this block.
PRSR_DEVICE void send(uint4* to, const uint4& value, Barrier* barrier, int rank) {
  uint32_t target, counter;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(target) : "r"(shared_address(to)), "r"(rank));
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(counter)
      : "r"(shared_address(barrier)), "r"(rank));
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];" ::
          "r"(target),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(counter)
      : "memory");
}

#else

// Before sm_90 there are no clusters; these functions are never called.
constexpr bool kClusters = false;
using Barrier = uint64_t;
PRSR_DEVICE int rank() { return 0; }
PRSR_DEVICE int ranks() { return 1; }
PRSR_DEVICE void cluster_barrier() {}
PRSR_DEVICE void init(Barrier*, int) {}
PRSR_DEVICE void publish_barriers() {}
PRSR_DEVICE void arrive_expecting(Barrier*, int) {}
PRSR_DEVICE void wait(Barrier*, uint32_t) {}
PRSR_DEVICE void send(uint4*, const uint4&, Barrier*, int) {}

#endif

}  // namespace prsr::device

#else

#include "emulation.h"

#endif
