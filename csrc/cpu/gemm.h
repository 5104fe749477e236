// The matrix product that the network consists of: rows of inputs times packed weights.
//
//   out[r][o] = bias[o] + start[r][o] + Σ_i f[r·ld_before + i] · w[i][o]
//               + Σ_s Σ_i a_s[r·lda + i] · w[first_input + s·length + i][o] + then[r][o]
//
// Outputs are lanes, so it does not matter whether a row is an image or a column, and a single row
// needs no padding. Weights come in blocks of 64 outputs, [block][input][width]: the width is 64,
// or for the last block the remaining outputs rounded up to 16, padded with zeros. One accumulator
// sums an output in the order of its inputs. Its bits therefore depend neither on the rows that are
// computed with it nor on whether the inputs come all at once or in turns, each of which starts
// from the sums of the one before.
#pragma once

#include "pairs.h"

namespace {

constexpr int kPanel = 16;  // outputs are padded to multiples of this: 64 bytes
constexpr int kBlock = 64;

// Registers used as accumulators; the others hold weights and the broadcast input.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// Rows of a register tile. Each needs an address register, and there are enough for six.
constexpr int most_rows(int vecs) { return kAccumulators / vecs < 6 ? kAccumulators / vecs : 6; }

constexpr int kPanelVecs = kPanel / kLanes;

class Tiles;  // tile_gemm.h

// Vectors per row of a register tile, a multiple of a panel. A single row takes enough of them to
// hide the latency of a multiply-add; with more rows, most loads of weights serve several sums.
constexpr int most_vecs(int64_t rows) {
  const int panels = (rows == 1 ? 8 : rows < 4 ? 4 : kAccumulators / 6) / kPanelVecs;
  return panels < 1 ? kPanelVecs : panels < kBlock / kPanel ? panels * kPanelVecs : kBlock / kLanes;
}

// The operands are floats, or pairs of bfloat16; then all lengths and distances of inputs are in
// pairs. Everything else is float32.
template <typename Operand>
struct Gemm {
  int64_t bundle = 1;               // images: of each value of `in`, `start`, `then` and `out`
  const Operand* before = nullptr;  // inputs f, which precede the others; or null
  int64_t ld_before = 0;
  int64_t before_length = 0;
  const Operand* in = nullptr;  // segment s of row r starts at s·segment_stride + r·lda
  int64_t lda = 0;
  int64_t length = 0;  // inputs per segment
  int64_t segments = 1;
  int64_t segment_stride = 0;
  int64_t first_segment = 0;  // first segment of a ring buffer …
  int64_t ring = 1;           // … with this number of segments
  const Operand* weights = nullptr;
  int64_t strip = 0;        // the most outputs per strip of the weights, if bundle is not 1
  int64_t first_input = 0;  // row of the weights that belongs to the first element of `in`
  int64_t inputs = 0;       // rows of the weights, if not segments · length
  // If not null, the numbers of the only inputs that are nonzero in any row, of one segment. The
  // weights of the others are not read. Products with zero add nothing, so the result is
  // bit-identical.
  const int32_t* nonzero = nullptr;
  int64_t nonzero_count = 0;
  int64_t outputs = 0;
  const float* bias = nullptr;   // [outputs, padded], or none
  const float* start = nullptr;  // [rows][…], or none
  int64_t ld_start = 0;
  const float* then = nullptr;  // [rows][…], or none
  int64_t ld_then = 0;
  bool relu = false;
  float* out = nullptr;  // [rows][…]; nothing beyond `outputs` is written
  int64_t ld_out = 0;
  int64_t first_row = 0, last_row = 0;       // compute these rows …
  int64_t first_block = 0, last_block = -1;  // … and these blocks; −1 for all
  // Computes the product if the operands are pairs and the instruction set has tiles; or null. Then
  // the weights of bundles are those of tile_gemm.h, and `then` and `relu` must not be used.
  Tiles* tiles = nullptr;

  int64_t blocks() const { return (outputs + kBlock - 1) / kBlock; }
};

// Adjacent outputs of a block, at most most_vecs(1) vectors.
template <typename Operand>
struct Strip {
  int64_t column;          // index of the first output
  const Operand* weights;  // weights of input 0
  int64_t width;           // distance between the weights of successive inputs
};

// Calls work(r, v) for every row and vector of a tile. Fully unrolled, so that the sums stay in
// registers.
template <int Rows, int Vecs, typename Work>
PRSR_INLINE void for_each(const Work& work) {
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) work(r, v);
  }
}

// Adds floats to the sums of each row, for `left` outputs at most.
template <int Rows, int Vecs>
PRSR_INLINE void add(const float* from, int64_t ld, int64_t left, Vec (&sums)[Rows][Vecs]) {
  if (left >= Vecs * kLanes) {
    for_each<Rows, Vecs>([&](int r, int v) { sums[r][v] += load(from + r * ld + v * kLanes); });
  } else {
    for_each<Rows, Vecs>([&](int r, int v) {
      if (left > v * kLanes) {
        sums[r][v] += load_first(from + r * ld + v * kLanes, left - v * kLanes);
      }
    });
  }
}

template <typename Operand, int Rows, int Vecs>
PRSR_INLINE void begin_sums(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                            Vec (&sums)[Rows][Vecs]) {
  if (p.bias) {
    const float* const bias = p.bias + strip.column;
    for_each<Rows, Vecs>([&](int r, int v) { sums[r][v] = load(bias + v * kLanes); });
  } else {
    for_each<Rows, Vecs>([&](int r, int v) { sums[r][v] = Vec{}; });
  }
  if (p.start) {
    add(p.start + row * p.ld_start + strip.column, p.ld_start, p.outputs - strip.column, sums);
  }
}

template <typename Operand, int Rows, int Vecs>
PRSR_INLINE void end_sums(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                          Vec (&sums)[Rows][Vecs]) {
  const int64_t left = p.outputs - strip.column;
  if (p.then) add(p.then + row * p.ld_then + strip.column, p.ld_then, left, sums);
  if (p.relu) for_each<Rows, Vecs>([&](int r, int v) { sums[r][v] = max(Vec{}, sums[r][v]); });
  float* const out = p.out + row * p.ld_out + strip.column;
  if (left >= Vecs * kLanes) {
    for_each<Rows, Vecs>([&](int r, int v) { store(out + r * p.ld_out + v * kLanes, sums[r][v]); });
  } else {
    for_each<Rows, Vecs>([&](int r, int v) {
      if (left > v * kLanes) {
        store_first(out + r * p.ld_out + v * kLanes, sums[r][v], left - v * kLanes);
      }
    });
  }
}

// Adds the products of `length` inputs of each row, `lda` apart, with their weights.
template <typename Operand, int Rows, int Vecs>
PRSR_INLINE void add_inputs(const Operand* a, int64_t lda, int64_t length, const Operand* w,
                            int64_t width, Vec (&sums)[Rows][Vecs]) {
  for (int64_t i = 0; i < length; ++i, w += width) {
    VecOf<Operand> weights[Vecs];
    for (int v = 0; v < Vecs; ++v) weights[v] = load(w + v * kLanes);
    for_each<Rows, Vecs>([&](int r, int v) {
      sums[r][v] = multiply_add(sums[r][v], broadcast(a[r * lda + i]), weights[v]);
    });
  }
}

// Inputs whose weights are fetched before their turn: those of nonzero inputs are not at regular
// distances, which hardware prefetchers need.
constexpr int64_t kInputsAhead = 8;

// Adds the products of the nonzero inputs.
template <typename Operand, int Rows, int Vecs>
PRSR_INLINE void add_nonzero(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                             Vec (&sums)[Rows][Vecs]) {
  const auto weights_of = [&](int64_t i) { return strip.weights + p.nonzero[i] * strip.width; };
  for (int64_t i = 0; i < p.nonzero_count; ++i) {
    const int64_t ahead = i + kInputsAhead < p.nonzero_count ? i + kInputsAhead : i;
    for (int v = 0; v < Vecs; v += kPanelVecs) __builtin_prefetch(weights_of(ahead) + v * kLanes);
    add_inputs(p.in + row * p.lda + p.nonzero[i], p.lda, 1, weights_of(i), strip.width, sums);
  }
}

template <typename Operand, int Rows, int Vecs>
inline void tile(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row) {
  Vec sums[Rows][Vecs];
  begin_sums(p, strip, row, sums);
  if (p.before) {
    add_inputs(p.before + row * p.ld_before, p.ld_before, p.before_length, strip.weights,
               strip.width, sums);
  }
  if (p.nonzero) add_nonzero(p, strip, row, sums);
  const Operand* w = strip.weights + p.first_input * strip.width;
  for (int64_t s = 0; s < p.segments && !p.nonzero; ++s) {
    const int64_t place = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    add_inputs(p.in + place * p.segment_stride + row * p.lda, p.lda, p.length, w, strip.width,
               sums);
    w += p.length * strip.width;
  }
  end_sums(p, strip, row, sums);
}

template <typename Operand, int Rows, int Vecs>
inline void tile_of(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                    int64_t rows) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return tile<Operand, Rows, Vecs>(p, strip, row);
    tile_of<Operand, Rows - 1, Vecs>(p, strip, row, rows);
  }
}

// All rows, in tiles of nearly equal height: 7 rows in tiles of at most 6 become 4 and 3.
struct Rows {
  template <typename Operand, int Vecs>
  static void compute(const Gemm<Operand>& p, const Strip<Operand>& strip) {
    constexpr int kMost = most_rows(Vecs);
    int64_t row = p.first_row;
    for (int64_t tiles = (p.last_row - row + kMost - 1) / kMost; tiles > 0; --tiles) {
      const int64_t rows = (p.last_row - row + tiles - 1) / tiles;
      tile_of<Operand, kMost, Vecs>(p, strip, row, rows);
      row += rows;
    }
  }
};

template <typename Operand, int Vecs, typename How>
inline void strip_of(const Gemm<Operand>& p, const How& how, const Strip<Operand>& strip,
                     int64_t vecs) {
  if constexpr (Vecs > 0) {
    if (vecs == Vecs) return how.template compute<Operand, Vecs>(p, strip);
    strip_of<Operand, Vecs - kPanelVecs>(p, how, strip, vecs);
  }
}

// Strip by strip, so that the weights of a strip stay in the cache for all rows.
template <typename Operand, typename How>
void compute(const Gemm<Operand>& p, const How& how) {
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const int64_t last = p.last_block < 0 ? p.blocks() : p.last_block;
  const int64_t widest = most_vecs(p.last_row - p.first_row) * kLanes;
  for (int64_t block = p.first_block; block < last; ++block) {
    const int64_t first = block * kBlock, left = p.outputs - first;
    const int64_t width = left >= kBlock ? kBlock : (left + kPanel - 1) / kPanel * kPanel;
    const Operand* const weights = p.weights + first * inputs;
    for (int64_t column = 0; column < width; column += widest) {
      const int64_t vecs = (width - column < widest ? width - column : widest) / kLanes;
      strip_of<Operand, most_vecs(1)>(p, how, {first + column, weights + column, width}, vecs);
    }
  }
}

}  // namespace
