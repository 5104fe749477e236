// What this machine does at its best, and the kernels' functions by themselves: for benchmarks and
// tests.
#pragma once

#include <cstdint>
#include <string>

namespace prsr {

// Fused multiply-adds on registers, two operations each: operations a second of `threads` threads
// at the same time. `instruction_set` is one of instruction_sets().
double fma_peak(const std::string& instruction_set, int64_t threads);

// Bytes a second that `threads` threads read at the same time, each its own part of a working set
// of `bytes` over and over. Throws std::bad_alloc where there is no memory for it.
double read_bandwidth(const std::string& instruction_set, int64_t bytes, int64_t threads);

// e to the x, and tanh(a)·σ(b), of `count` numbers, as the kernels compute them.
void exponentials(const std::string& instruction_set, const float* x, float* out, int64_t count);
void gates(const std::string& instruction_set, const float* a, const float* b, float* out,
           int64_t count);

// The loops, compiled once per instruction set (csrc/loops.cpp). They share no inline functions
// with the rest, for the reason in engine.h.
struct Loops {
  // Multiplies and adds in place the first of 512 floats at `values`, as many as fill the
  // registers, `times` times; returns how many multiply-adds those were.
  int64_t (*multiply_add)(float* values, int64_t times);
  // Reads `lines` lines of 64 bytes, a multiple of 8, `times` times; returns a sum of them.
  float (*read)(const float* from, int64_t lines, int64_t times);
  void (*exponentials)(const float* x, float* out, int64_t count);
  void (*gates)(const float* a, const float* b, float* out, int64_t count);
};
extern const Loops loops_baseline, loops_avx2, loops_avx512;

}  // namespace prsr
