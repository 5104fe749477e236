// The one product that everything is made of: rows of inputs times packed weights.
//
//   out[r][o] = bias[o] + start[r][o] + Σ_s Σ_i a_s[r·lda + i] · w[s·length + i][o]
//
// Outputs are lanes, so it does not matter whether a row is an image or a column, and one row
// costs no padding. Weights come in panels of 16 outputs, 64 bytes a line, zero beyond the last
// output: [panel][segment · length + input][16]. An output is summed up in the order of its
// inputs by one accumulator, so that its bits do not depend on the rows that it is computed with.
#pragma once

#include "vec.h"

namespace {

constexpr int kPanel = 16;
constexpr int kPanelVecs = kPanel / kLanes;

// Registers for accumulators; the rest hold weights and the broadcast input.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// Rows of a tile. Wide enough that its accumulators hide the latency of a multiply-add.
#if defined(__AVX512F__)
constexpr int kMostRows = 12;
#else
constexpr int kMostRows = kAccumulators / kPanelVecs;
#endif

constexpr int panels_at_once(int rows) {
  const int fit = kAccumulators / (rows * kPanelVecs);
  return fit > 4 ? 4 : fit;
}

struct Product {
  const float* in = nullptr;  // inputs: segment s of row r begins at s·segment_stride + r·lda
  int64_t lda = 0;
  int64_t length = 0;  // of a segment
  int64_t segments = 1;
  int64_t segment_stride = 0;
  int64_t first_segment = 0;  // where a ring of segments begins
  const float* weights = nullptr;
  int64_t inputs = 0;  // of a panel, if not all of them are asked for
  int64_t outputs = 0;
  const float* bias = nullptr;   // [outputs, padded], or none
  const float* start = nullptr;  // [rows][…], or none
  int64_t ld_start = 0;
  float* out = nullptr;  // [rows][…]; nothing beyond `outputs` is written
  int64_t ld_out = 0;
  int64_t first_row = 0, last_row = 0;       // compute these rows …
  int64_t first_panel = 0, last_panel = -1;  // … and these panels; −1 stands for all
  bool relu = false;

  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
};

template <int Rows, int Panels>
inline void tile(const Product& p, int64_t row, int64_t panel) {
  constexpr int kVecs = Panels * kPanelVecs;
  const int64_t column = panel * kPanel;
  Vec sums[Rows][kVecs];
  for (int v = 0; v < kVecs; ++v) {
    const Vec bias = p.bias ? load(p.bias + column + v * kLanes) : Vec{};
    for (int r = 0; r < Rows; ++r) {
      sums[r][v] = bias;
      if (!p.start) continue;
      const float* const start = p.start + (row + r) * p.ld_start + column + v * kLanes;
      sums[r][v] += load_first(start, p.outputs - column - v * kLanes);
    }
  }
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const float* w = p.weights + panel * inputs * kPanel;
  for (int64_t s = 0; s < p.segments; ++s) {
    const int64_t place = (p.first_segment + s) % p.segments;
    const float* a = p.in + place * p.segment_stride + row * p.lda;
    for (int64_t i = 0; i < p.length; ++i, w += kPanel) {
      Vec weights[kVecs];
      for (int q = 0; q < Panels; ++q) {
        for (int v = 0; v < kPanelVecs; ++v) {
          weights[q * kPanelVecs + v] = load(w + q * inputs * kPanel + v * kLanes);
        }
      }
      for (int r = 0; r < Rows; ++r) {
        const Vec x = broadcast(a[r * p.lda + i]);
        for (int v = 0; v < kVecs; ++v) sums[r][v] += x * weights[v];
      }
    }
  }
  for (int v = 0; v < kVecs; ++v) {
    const int64_t left = p.outputs - column - v * kLanes;
    if (left <= 0) break;
    for (int r = 0; r < Rows; ++r) {
      const Vec result = p.relu ? max(sums[r][v], Vec{}) : sums[r][v];
      store_first(p.out + (row + r) * p.ld_out + column + v * kLanes, result, left);
    }
  }
}

template <int Rows>
inline void strip(const Product& p, int64_t row) {
  constexpr int kAtOnce = panels_at_once(Rows);
  const int64_t last = p.last_panel < 0 ? p.panels() : p.last_panel;
  int64_t panel = p.first_panel;
  for (; panel + kAtOnce <= last; panel += kAtOnce) tile<Rows, kAtOnce>(p, row, panel);
  for (; panel < last; ++panel) tile<Rows, 1>(p, row, panel);
}

template <int Rows>
void strip_of(const Product& p, int64_t row, int64_t rows) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return strip<Rows>(p, row);
    strip_of<Rows - 1>(p, row, rows);
  }
}

// Rows are dealt out evenly: 13 rows in tiles of at most 12 make 7 and 6, not 12 and 1.
inline void compute(const Product& p) {
  int64_t row = p.first_row;
  for (int64_t tiles = (p.last_row - row + kMostRows - 1) / kMostRows; tiles > 0; --tiles) {
    const int64_t rows = (p.last_row - row + tiles - 1) / tiles;
    strip_of<kMostRows>(p, row, rows);
    row += rows;
  }
}

// The same for one row of which only the inputs `from[0 … count − 1]` are not zero: the others'
// weights are not even read. A product with zero adds nothing, so the result is the same to a bit.
template <int Panels>
inline void sparse_tile(const Product& p, const int32_t* from, int64_t count, int64_t panel) {
  constexpr int kVecs = Panels * kPanelVecs;
  const int64_t column = panel * kPanel;
  Vec sums[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    sums[v] = p.bias ? load(p.bias + column + v * kLanes) : Vec{};
    if (!p.start) continue;
    sums[v] += load_first(p.start + column + v * kLanes, p.outputs - column - v * kLanes);
  }
  const float* const w = p.weights + panel * p.inputs * kPanel;
  for (int64_t i = 0; i < count; ++i) {
    const Vec x = broadcast(p.in[from[i]]);
    for (int q = 0; q < Panels; ++q) {
      for (int v = 0; v < kPanelVecs; ++v) {
        sums[q * kPanelVecs + v] += x * load(w + (q * p.inputs + from[i]) * kPanel + v * kLanes);
      }
    }
  }
  for (int v = 0; v < kVecs && column + v * kLanes < p.outputs; ++v) {
    store_first(p.out + column + v * kLanes, sums[v], p.outputs - column - v * kLanes);
  }
}

inline void compute_sparse(const Product& p, const int32_t* from, int64_t count) {
  constexpr int kAtOnce = panels_at_once(1);
  int64_t panel = p.first_panel;
  for (; panel + kAtOnce <= p.last_panel; panel += kAtOnce) {
    sparse_tile<kAtOnce>(p, from, count, panel);
  }
  for (; panel < p.last_panel; ++panel) sparse_tile<1>(p, from, count, panel);
}

}  // namespace
