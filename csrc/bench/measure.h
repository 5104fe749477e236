// Limits of this machine, for benchmarks, and single functions of the kernels, for tests.
#pragma once

#include <cstdint>
#include <string>

namespace prsr {

// Floating-point operations per second of `threads` concurrent threads that only compute fused
// multiply-adds on registers, two operations each. These functions throw std::invalid_argument
// unless `instruction_set` is one of instruction_sets().
double fma_peak(const std::string& instruction_set, int64_t threads);

// Bytes per second that `threads` concurrent threads read, each its share of a working set of
// `bytes` over and over. Throws std::bad_alloc if that cannot be allocated.
double read_bandwidth(const std::string& instruction_set, int64_t bytes, int64_t threads);

// Seconds that a message takes from this thread to another and back. The two wait by reading a
// cache line that the other will write.
double round_trip();

// exp(x) and tanh(a)·σ(b) of `count` floats, as the kernels compute them.
void exponentials(const std::string& instruction_set, const float* x, float* out, int64_t count);
void gates(const std::string& instruction_set, const float* a, const float* b, float* out,
           int64_t count);

// Adds to c [rows][columns], by one product of tiles (csrc/cpu/tiles.h), the product of a
// [rows][pairs] and b [pairs][columns], of which both are pairs of bfloat16. Throws
// std::invalid_argument if the instruction set has no tiles.
void multiply_tiles(const std::string& instruction_set, const uint32_t* a, const uint32_t* b,
                    float* c, int64_t rows, int64_t pairs, int64_t columns);

// Rounds `size` features of `bundle` images, 1 or kBundle, to pairs of bfloat16 (pairs.h).
void round_to_bf16(const std::string& instruction_set, const float* x, uint16_t* out, int64_t size,
                   int64_t bundle);

// The loops, compiled once per instruction set (loops.cpp). No inline functions, for the reason in
// operands.h.
struct Loops {
  // Performs multiply-adds on the first of 512 floats at `values`, as many as fill the registers,
  // `times` times. Returns the number of multiply-adds.
  int64_t (*multiply_add)(float* values, int64_t times);
  // Reads `lines` cache lines of 64 bytes, a multiple of 8, `times` times. Returns their sum.
  float (*read)(const float* from, int64_t lines, int64_t times);
  void (*exponentials)(const float* x, float* out, int64_t count);
  void (*gates)(const float* a, const float* b, float* out, int64_t count);
  void (*round_to_bf16)(const float* x, uint16_t* out, int64_t size, int64_t bundle);
  void (*multiply_tiles)(const uint32_t* a, const uint32_t* b, float* c, int64_t rows,
                         int64_t pairs, int64_t columns);  // or null
};
extern const Loops loops_baseline, loops_avx2, loops_avx512, loops_avx512bf16, loops_amx,
    loops_amx_emulated;

}  // namespace prsr
