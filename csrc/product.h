// The one product that everything is made of: rows of inputs times packed weights.
//
//   out[r][o] = bias[o] + start[r][o] + Σ_i f[r·ld_before + i] · w[i][o]
//               + Σ_s Σ_i a_s[r·lda + i] · w[first_input + s·length + i][o] + then[r][o]
//
// Outputs are lanes, so it does not matter whether a row is an image or a column, and one row
// costs no padding. Weights come in blocks of 64 outputs, those of a block side by side for each
// input: [block][input][width], width 64, in the last block what is left rounded up to 16, with
// zeros beyond the last output. An output is summed up in the order of its inputs by one
// accumulator, so that its bits do not depend on the rows that it is computed with, nor on whether
// the inputs come all at once or in turns, each turn starting from the sums of the one before.
#pragma once

#include "vec.h"

namespace {

constexpr int kPanel = 16;  // what outputs are rounded up to: 64 bytes
constexpr int kBlock = 64;

// Registers for accumulators; the rest hold weights and the broadcast input.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// Rows of a tile. Each has an address of its own, and there are registers for six of them.
constexpr int most_rows(int vecs) { return kAccumulators / vecs < 6 ? kAccumulators / vecs : 6; }

constexpr int kPanelVecs = kPanel / kLanes;

// Vectors of a tile that serves so many rows, whole panels. One row alone takes enough of them to
// hide the time that a sum takes, others so many that most loads serve several sums.
constexpr int most_vecs(int64_t rows) {
  const int panels = (rows == 1 ? 8 : rows < 4 ? 4 : kAccumulators / 6) / kPanelVecs;
  return panels < 1 ? kPanelVecs : panels < kBlock / kPanel ? panels * kPanelVecs : kBlock / kLanes;
}

struct Product {
  int64_t bundle = 1;  // floats that each number of `in`, `start`, `then` and `out` stands for
  const float* before = nullptr;  // inputs f that come before the others, or none
  int64_t ld_before = 0;
  int64_t before_length = 0;
  const float* in = nullptr;  // inputs: segment s of row r begins at s·segment_stride + r·lda
  int64_t lda = 0;
  int64_t length = 0;  // of a segment
  int64_t segments = 1;
  int64_t segment_stride = 0;
  int64_t first_segment = 0;      // where they begin, if they lie in a ring …
  int64_t ring = 1;               // … of so many
  const void* weights = nullptr;  // float, or bfloat16 if `half` and no bundle
  bool half = false;
  int64_t strip = 0;        // how wide the weights' strips are at most, if there are bundles
  int64_t first_input = 0;  // which of the weights' inputs is the first of `in`
  int64_t inputs = 0;       // of the weights, if segments · length are not all
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
  int64_t first_block = 0, last_block = -1;  // … and these blocks; −1 stands for all

  int64_t blocks() const { return (outputs + kBlock - 1) / kBlock; }
};

// Some outputs of a block, at most most_vecs(1) vectors of them.
template <typename Weight>
struct Strip {
  int64_t column;         // the first of all outputs
  const Weight* weights;  // of input 0
  int64_t width;          // from one input's to the next one's
};

// Calls work(r, v) for every row and vector of a tile. Unrolled in full, for only then do the sums
// stay in registers.
template <int Rows, int Vecs, typename Work>
inline void for_each(const Work& work) {
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) work(r, v);
  }
}

// Adds numbers of each row to the sums: as many as there are outputs.
template <int Rows, int Vecs>
inline void add(const float* from, int64_t ld, int64_t left, Vec (&sums)[Rows][Vecs]) {
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

template <typename Weight, int Rows, int Vecs>
inline void begin_sums(const Product& p, const Strip<Weight>& strip, int64_t row,
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

template <typename Weight, int Rows, int Vecs>
inline void end_sums(const Product& p, const Strip<Weight>& strip, int64_t row,
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

// Adds `length` inputs of each row, `lda` floats apart, times their weights.
template <typename Weight, int Rows, int Vecs>
inline void add_inputs(const float* a, int64_t lda, int64_t length, const Weight* w, int64_t width,
                       Vec (&sums)[Rows][Vecs]) {
  for (int64_t i = 0; i < length; ++i, w += width) {
    Vec weights[Vecs];
    for (int v = 0; v < Vecs; ++v) weights[v] = load(w + v * kLanes);
    for_each<Rows, Vecs>(
        [&](int r, int v) { sums[r][v] += broadcast(a[r * lda + i]) * weights[v]; });
  }
}

template <typename Weight, int Rows, int Vecs>
inline void tile(const Product& p, const Strip<Weight>& strip, int64_t row) {
  Vec sums[Rows][Vecs];
  begin_sums(p, strip, row, sums);
  if (p.before) {
    add_inputs(p.before + row * p.ld_before, p.ld_before, p.before_length, strip.weights,
               strip.width, sums);
  }
  const Weight* w = strip.weights + p.first_input * strip.width;
  for (int64_t s = 0; s < p.segments; ++s) {
    const int64_t place = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    add_inputs(p.in + place * p.segment_stride + row * p.lda, p.lda, p.length, w, strip.width,
               sums);
    w += p.length * strip.width;
  }
  end_sums(p, strip, row, sums);
}

template <typename Weight, int Rows, int Vecs>
inline void tile_of(const Product& p, const Strip<Weight>& strip, int64_t row, int64_t rows) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return tile<Weight, Rows, Vecs>(p, strip, row);
    tile_of<Weight, Rows - 1, Vecs>(p, strip, row, rows);
  }
}

// Rows are dealt out evenly: 7 rows in tiles of at most 6 make 4 and 3, not 6 and 1.
struct Rows {
  template <typename Weight, int Vecs>
  static void compute(const Product& p, const Strip<Weight>& strip) {
    constexpr int kMost = most_rows(Vecs);
    int64_t row = p.first_row;
    for (int64_t tiles = (p.last_row - row + kMost - 1) / kMost; tiles > 0; --tiles) {
      const int64_t rows = (p.last_row - row + tiles - 1) / tiles;
      tile_of<Weight, kMost, Vecs>(p, strip, row, rows);
      row += rows;
    }
  }
};

// One row of which only the inputs `from[0 … count − 1]` are not zero: the others' weights are not
// even read. A product with zero adds nothing, so the result is the same to a bit.
struct Sparse {
  const int32_t* from;
  int64_t count;

  template <typename Weight, int Vecs>
  void compute(const Product& p, const Strip<Weight>& strip) const {
    constexpr int64_t kAhead = 8;  // the gaps are irregular: no machine foresees them
    Vec sums[1][Vecs];
    begin_sums(p, strip, 0, sums);
    for (int64_t i = 0; i < count; ++i) {
      const Weight* const w = strip.weights + from[i] * strip.width;
      const Weight* const ahead =
          strip.weights + from[i + kAhead < count ? i + kAhead : count - 1] * strip.width;
      for (int v = 0; v < Vecs; v += kPanelVecs) __builtin_prefetch(ahead + v * kLanes);
      const Vec x = broadcast(p.in[from[i]]);
      for (int v = 0; v < Vecs; ++v) sums[0][v] += x * load(w + v * kLanes);
    }
    end_sums(p, strip, 0, sums);
  }
};

template <typename Weight, int Vecs, typename How>
inline void strip_of(const Product& p, const How& how, const Strip<Weight>& strip, int64_t vecs) {
  if constexpr (Vecs > 0) {
    if (vecs == Vecs) return how.template compute<Weight, Vecs>(p, strip);
    strip_of<Weight, Vecs - kPanelVecs>(p, how, strip, vecs);
  }
}

// Strip by strip, for a strip's weights stay in the cache while all rows pass.
template <typename Weight, typename How>
void strips(const Product& p, const How& how) {
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const int64_t last = p.last_block < 0 ? p.blocks() : p.last_block;
  const int64_t widest = most_vecs(p.last_row - p.first_row) * kLanes;
  for (int64_t block = p.first_block; block < last; ++block) {
    const int64_t first = block * kBlock, left = p.outputs - first;
    const int64_t width = left >= kBlock ? kBlock : (left + kPanel - 1) / kPanel * kPanel;
    const Weight* const weights = static_cast<const Weight*>(p.weights) + first * inputs;
    for (int64_t column = 0; column < width; column += widest) {
      const int64_t vecs = (width - column < widest ? width - column : widest) / kLanes;
      strip_of<Weight, most_vecs(1)>(p, how, {first + column, weights + column, width}, vecs);
    }
  }
}

template <typename How>
inline void compute(const Product& p, const How& how) {
  p.half ? strips<uint16_t>(p, how) : strips<float>(p, how);
}

}  // namespace
