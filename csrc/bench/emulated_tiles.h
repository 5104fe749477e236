// The operations of csrc/cpu/tiles.h without AMX, so that the kernels that use them can be tested
// on a processor without it. They end the process where the processor would raise an exception.
#pragma once

#include <immintrin.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct EmulatedTiles {
  bool configured = false;
  TileConfig config;
  alignas(64) uint32_t tiles[8][16][16];
};

thread_local EmulatedTiles emulated;

inline void require(bool met, const char* what) {
  if (met) return;
  std::fprintf(stderr, "emulated AMX: %s\n", what);
  std::abort();
}

inline void configure_tiles(const TileConfig& config) {
  bool valid = config.palette == 1 && config.start_row == 0;
  for (const uint8_t byte : config.reserved) valid &= byte == 0;
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = config.rows[tile], bytes = config.row_bytes[tile];
    valid &= rows <= 16 && bytes <= 64 && (rows == 0) == (bytes == 0);
    valid &= tile < 8 || rows == 0;
  }
  require(valid, "invalid tile configuration");
  emulated.configured = true;
  emulated.config = config;
  std::memset(emulated.tiles, 0, sizeof emulated.tiles);
}

inline void release_tiles() { emulated.configured = false; }

inline void require_tile(int tile) {
  require(emulated.configured && emulated.config.rows[tile] > 0, "a tile is not configured");
}

template <int Tile>
inline void load_tile(const void* from, int64_t stride) {
  require_tile(Tile);
  std::memset(emulated.tiles[Tile], 0, sizeof emulated.tiles[Tile]);
  for (int row = 0; row < emulated.config.rows[Tile]; ++row) {
    std::memcpy(emulated.tiles[Tile][row], static_cast<const char*>(from) + row * stride,
                emulated.config.row_bytes[Tile]);
  }
}

template <int Tile>
inline void store_tile(void* to, int64_t stride) {
  require_tile(Tile);
  for (int row = 0; row < emulated.config.rows[Tile]; ++row) {
    std::memcpy(static_cast<char*>(to) + row * stride, emulated.tiles[Tile][row],
                emulated.config.row_bytes[Tile]);
  }
}

// One row of a product, for all columns. Its arithmetic must not be moved to where MXCSR has other
// values, so it is a function of its own.
__attribute__((noinline)) void multiply_row(float* sums, const uint32_t* a, int pairs,
                                            const uint32_t (*b)[16]) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
  for (int k = 0; k < pairs; ++k) {
    const __m512i x = _mm512_set1_epi32(static_cast<int>(a[k])), w = _mm512_load_si512(b[k]);
    even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                           _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), even);
    odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
                          _mm512_castsi512_ps(_mm512_and_si512(w, high)), odd);
  }
  _mm512_store_ps(sums, _mm512_add_ps(_mm512_load_ps(sums), _mm512_add_ps(even, odd)));
}

template <int C, int A, int B>
inline void multiply_tiles() {
  require_tile(C), require_tile(A), require_tile(B);
  const TileConfig& config = emulated.config;
  require(config.rows[C] == config.rows[A] && config.row_bytes[C] == config.row_bytes[B] &&
              config.row_bytes[A] == 4 * config.rows[B] && config.row_bytes[B] % 4 == 0,
          "the shapes of a product do not match");
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x9FC0);  // denormals are zero and flushed to zero, round to nearest, no exceptions
  for (int row = 0; row < config.rows[C]; ++row) {
    multiply_row(reinterpret_cast<float*>(emulated.tiles[C][row]), emulated.tiles[A][row],
                 config.rows[B], emulated.tiles[B]);
  }
  _mm_setcsr(before);
}

}  // namespace
