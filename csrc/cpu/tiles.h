// The tile registers of Intel AMX: eight matrices of up to 16 rows of 64 bytes.
//
// A product of tiles adds to C [rows][columns], in float32, the product of A [rows][pairs] and
// B [pairs][columns], in pairs of bfloat16. In each element, the products of the low halves are
// summed from zero, in the order of the pairs, and so are those of the high halves; the two sums
// are added to each other and then to C. Every step is a fused multiply-add or an addition that
// rounds to nearest even, with denormal operands and results as zero, whatever MXCSR says
// (TDPBF16PS in Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2).
#pragma once

#include <cstdint>

namespace {

// What LDTILECFG reads. A tile without rows cannot be used.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of each register; only the first eight exist
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace

#if defined(PRSR_EMULATED_TILES)
#include "emulated_tiles.h"
#elif defined(PRSR_TILES)

namespace {

// Assembly instead of intrinsics: in GCC, these take register numbers as literals only, and the
// compiler is not told what memory they read.

// Sets the shapes of all registers, and makes them zero.
inline void configure_tiles(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config));
}

// Afterwards the thread has no tiles, and nothing of them to save when it is interrupted.
inline void release_tiles() { asm volatile("tilerelease"); }

// Rows are `stride` bytes apart.
template <int Tile>
inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
}

template <int C, int A, int B>
inline void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

}  // namespace
#endif
