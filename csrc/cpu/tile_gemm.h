// The product of gemm.h for pairs of bfloat16 by AMX (tiles.h). Either operand may be the left one,
// so that each is read as it lies in memory:
//
//   single images   sums [row][output]   += inputs [row][pair]     · weights [pair][output]
//   bundles         sums [output][image] += weights [output][pair] · inputs [pair][image]
//
// The weights of bundles come in strips of 16 outputs, [strip][chunk][output][pair].
//
// A chunk is the pairs that one instruction multiplies. `before` and each segment begin a new one,
// and their last one may have fewer than 16 pairs, for which there are tiles of that size: nothing
// is read beyond an operand. The order of a sum is therefore the same in both forms, and however
// rows, outputs and turns are divided.
#pragma once

#include "gemm.h"
#include "operands.h"
#include "tiles.h"

namespace {

#if defined(PRSR_TILES)  // the instruction set has tiles

constexpr bool kTiles = true;
constexpr int64_t kTileRows = 16;
constexpr int64_t kChunk = 16;

// The registers: four for sums, because one product takes as long as it takes to start three or
// four others, and one for each operand, in whole chunks and in the last ones.
constexpr int kSumTiles = 4, kLeft = 4, kRight = 5, kLastLeft = 6, kLastRight = 7;

// Where the tiles of an operand lie, as distances in pairs.
struct TileOperand {
  const Pair* first;
  int64_t tile;      // from one tile of a chunk to the next
  int64_t chunk;     // from one chunk to the next
  int64_t row;       // from one row of a tile to the next …
  int64_t last_row;  // … in a chunk of fewer than 16 pairs
};

// Calls work(std::integral_constant<int, i>()) for each i below Count.
template <typename Work, int... I>
PRSR_INLINE void each_of(const Work& work, std::integer_sequence<int, I...>) {
  (work(std::integral_constant<int, I>()), ...);
}
template <int Count, typename Work>
PRSR_INLINE void each(const Work& work) {
  each_of(work, std::make_integer_sequence<int, Count>());
}

// Adds the product of one chunk to Lefts × Rights tiles of sums.
template <int Lefts, int Rights, int Left, int Right>
PRSR_INLINE void multiply_chunk(const Pair* left, int64_t next_left, int64_t left_row,
                                const Pair* right, int64_t next_right, int64_t right_row) {
  each<Lefts>([&](auto i) {
    load_tile<Left>(left + i * next_left, 4 * left_row);
    each<Rights>([&](auto j) {
      if (i == 0 || Rights > 1) load_tile<Right>(right + j * next_right, 4 * right_row);
      multiply_tiles<i * Rights + j, Left, Right>();
    });
  });
}

// Adds the products of `length` successive pairs to Lefts × Rights tiles of sums.
template <int Lefts, int Rights>
PRSR_INLINE void multiply_chunks(const TileOperand& left, const TileOperand& right,
                                 int64_t length) {
  const Pair *a = left.first, *b = right.first;
  for (; length >= kChunk; length -= kChunk, a += left.chunk, b += right.chunk) {
    multiply_chunk<Lefts, Rights, kLeft, kRight>(a, left.tile, left.row, b, right.tile, right.row);
  }
  if (length > 0) {
    multiply_chunk<Lefts, Rights, kLastLeft, kLastRight>(a, left.tile, left.last_row, b, right.tile,
                                                         right.last_row);
  }
}

// Lefts × Rights tiles of sums in memory, as distances in floats.
struct TileSums {
  float* first;
  int64_t row, left,
      right;  // to the next row of a tile, tile of the left operand, and of the right

  template <int Lefts, int Rights>
  PRSR_INLINE void load() const {
    each<Lefts>([&](auto i) {
      each<Rights>(
          [&](auto j) { load_tile<i * Rights + j>(first + i * left + j * right, 4 * row); });
    });
  }
  template <int Lefts, int Rights>
  PRSR_INLINE void store() const {
    each<Lefts>([&](auto i) {
      each<Rights>(
          [&](auto j) { store_tile<i * Rights + j>(first + i * left + j * right, 4 * row); });
    });
  }
};

// The tile registers of the calling thread. The destructor, on the same thread, releases them.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles() {
    if (rows_) release_tiles();
  }

  // Tiles of sums get this number of rows and columns, and last chunks of `length` pairs get
  // theirs. It takes about as long as a dozen products, and is seldom necessary.
  void configure(int64_t rows, int64_t length, int64_t columns) {
    const int64_t last = length % kChunk;
    if (rows == rows_ && columns == columns_ && (last == 0 || last == last_)) return;
    TileConfig config;
    const auto shape = [&](int tile, int64_t tile_rows, int64_t tile_columns) {
      config.rows[tile] = static_cast<uint8_t>(tile_rows);
      config.row_bytes[tile] = static_cast<uint16_t>(4 * tile_columns);
    };
    for (int tile = 0; tile < kSumTiles; ++tile) shape(tile, rows, columns);
    shape(kLeft, rows, kChunk);
    shape(kRight, kChunk, columns);
    if (last) {
      shape(kLastLeft, rows, last);
      shape(kLastRight, last, columns);
    }
    configure_tiles(config);
    rows_ = rows;
    columns_ = columns;
    last_ = last;
  }

 private:
  int64_t rows_ = 0, columns_ = 0, last_ = 0;
};

// Adds all products of p to Lefts × Rights tiles of sums of `rows` rows and `columns` columns.
// `operands(inputs, ld, weights)` gives the left and right operand for inputs whose rows are `ld`
// apart and for the weights of the first of them, `width` apart.
template <int Lefts, int Rights, typename Operands>
PRSR_INLINE void add_tiles(const Gemm<Pair>& p, const Strip<Pair>& strip, int64_t row, int64_t rows,
                           int64_t columns, const TileSums& sums, const Operands& operands) {
  if (p.before) {
    p.tiles->configure(rows, p.before_length, columns);
    sums.load<Lefts, Rights>();
    const auto [left, right] = operands(p.before + row * p.ld_before, p.ld_before, strip.weights,
                                        p.before_length % kChunk);
    multiply_chunks<Lefts, Rights>(left, right, p.before_length);
    sums.store<Lefts, Rights>();
  }
  p.tiles->configure(rows, p.length, columns);
  sums.load<Lefts, Rights>();
  const Pair* weights = strip.weights + p.first_input * strip.width;
  for (int64_t s = 0; s < p.segments; ++s, weights += p.length * strip.width) {
    const int64_t place = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    const auto [left, right] =
        operands(p.in + place * p.segment_stride + row * p.lda, p.lda, weights, p.length % kChunk);
    multiply_chunks<Lefts, Rights>(left, right, p.length);
  }
  sums.store<Lefts, Rights>();
}

// Single images, for compute(): rows in tiles of nearly equal height.
struct TileRows {
  template <typename Operand, int Vecs>
  void compute(const Gemm<Operand>& p, const Strip<Operand>& strip) const {
    alignas(64) float memory[kTileRows][kBlock];
    const TileSums sums{memory[0], kBlock, 0, kPanel};
    int64_t row = p.first_row;
    for (int64_t tiles = (p.last_row - row + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
      const int64_t rows = (p.last_row - row + tiles - 1) / tiles;
      for (int64_t r = 0; r < rows; ++r) {
        Vec v[1][Vecs];
        begin_sums(p, strip, row + r, v);
        for_each<1, Vecs>([&](int, int i) { store(memory[r] + i * kLanes, v[0][i]); });
      }
      add_tiles<1, Vecs / kPanelVecs>(
          p, strip, row, rows, kPanel, sums,
          [&](const Pair* inputs, int64_t ld, const Pair* weights, int64_t) {
            return std::pair(
                TileOperand{inputs, 0, kChunk, ld, ld},
                TileOperand{weights, kPanel, kChunk * strip.width, strip.width, strip.width});
          });
      for (int64_t r = 0; r < rows; ++r) {
        Vec v[1][Vecs];
        for_each<1, Vecs>([&](int, int i) { v[0][i] = load(memory[r] + i * kLanes); });
        end_sums(p, strip, row + r, v);
      }
      row += rows;
    }
  }
};

// Bundles: `Strips` strips of `strip.width` outputs, and `Rows` rows.
template <int Strips, int Rows>
void tile_bundle(const Gemm<Pair>& p, const Strip<Pair>& strip, int64_t next_strip, int64_t row) {
  constexpr int64_t kImages = prsr::kBundle;
  float* const out = p.out + row * p.ld_out + strip.column * kImages;
  for (int r = 0; r < Rows; ++r) {
    const float* const start =
        p.start ? p.start + (row + r) * p.ld_start + strip.column * kImages : nullptr;
    for (int64_t o = 0; o < Strips * strip.width; ++o) {
      const float bias = p.bias ? p.bias[strip.column + o] : 0;
      for (int64_t i = 0; i < kImages; ++i) {
        out[r * p.ld_out + o * kImages + i] = start ? bias + start[o * kImages + i] : bias;
      }
    }
  }
  add_tiles<Strips, Rows>(
      p, strip, row, strip.width, kImages, {out, kImages, strip.width * kImages, p.ld_out},
      [&](const Pair* inputs, int64_t ld, const Pair* weights, int64_t last) {
        return std::pair(TileOperand{weights, next_strip, strip.width * kChunk, kChunk, last},
                         TileOperand{inputs, ld, kChunk * kImages, kImages, kImages});
      });
}

// `Strips` strips and all rows, `Rows` at a time.
template <int Strips, int Rows>
void tile_bundle_rows(const Gemm<Pair>& p, const Strip<Pair>& strip, int64_t next_strip,
                      int64_t row) {
  for (; row + Rows <= p.last_row; row += Rows) {
    tile_bundle<Strips, Rows>(p, strip, next_strip, row);
  }
  if constexpr (Rows > 1) {
    if (row < p.last_row) tile_bundle_rows<Strips, Rows - 1>(p, strip, next_strip, row);
  }
}

inline void tile_bundles(const Gemm<Pair>& p) {
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const int64_t rows = p.last_row - p.first_row, next = inputs * kTileRows;
  int64_t column = 0;
  const auto strips_of = [&](int64_t count, auto work) {
    for (; column + count * kTileRows <= p.outputs; column += count * kTileRows) {
      work(Strip<Pair>{column, p.weights + column * inputs, kTileRows});
    }
  };
  // With few rows, several strips, so that there are enough products at a time.
  if (rows == 1) {
    strips_of(4, [&](const auto& s) { tile_bundle<4, 1>(p, s, next, p.first_row); });
  } else if (rows == 2) {
    strips_of(2, [&](const auto& s) { tile_bundle<2, 2>(p, s, next, p.first_row); });
  }
  strips_of(1, [&](const auto& s) { tile_bundle_rows<1, 4>(p, s, next, p.first_row); });
  if (column < p.outputs) {
    tile_bundle_rows<1, 4>(p, {column, p.weights + column * inputs, p.outputs - column}, next,
                           p.first_row);
  }
}

inline void compute_by_tiles(const Gemm<Pair>& p) {
  p.bundle == 1 ? compute(p, TileRows{}) : tile_bundles(p);
}

#else

constexpr bool kTiles = false;
class Tiles {};

#endif

}  // namespace
