// The product of product.h for bundles: lanes are pictures, and weights are broadcast.
//
// So nothing is padded, and each weight is read once for all pictures of a bundle. Weights come in
// strips of at most 24 outputs, pairs of them dealt out evenly: [strip][input][width], for they are
// read in the order of memory then, which alone keeps up with the multiply-adds of single rows. An
// output is summed up in the order of product.h, so that a picture's bits do not depend on whether
// it is drawn in a bundle.
#pragma once

#include "engine.h"
#include "product.h"

namespace {

constexpr int kStrip = 24;

// A register is a bundle, or half of one, or two: those of two outputs then, in turn for each
// picture, so that two weights are one broadcast and single rows are not bound by loads.
constexpr int kPair = kLanes > prsr::kBundle ? kLanes / prsr::kBundle : 1;
constexpr int kSides = kLanes < prsr::kBundle ? prsr::kBundle / kLanes : 1;

// Rows of a tile: with two, a weight is loaded for every other sum only.
constexpr int kBundleRows = 2;

constexpr int most_outputs(int rows) { return kAccumulators / (rows * kSides) * kPair; }

template <int... Lane>
inline Vec in_turn(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane % kPair * prsr::kBundle + Lane / kPair)...>(v, v);
}

template <int... Lane>
inline Vec one_by_one(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane % prsr::kBundle * kPair + Lane / prsr::kBundle)...>(v, v);
}

template <int... Lane>
inline Vec repeated(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane / kPair)...>(v, v);
}

constexpr std::make_integer_sequence<int, kLanes> kAllLanes;

// One side of an input's bundle, for every output of a register.
inline Vec load_input(const float* from) {
  if constexpr (kPair == 1) return load(from);
  return repeated(load_first(from, prsr::kBundle), kAllLanes);
}

// The weights, or biases, of a register's outputs, for every picture.
inline Vec load_weights(const float* from) {
  if constexpr (kPair == 1) return broadcast(*from);
  typedef int64_t Pairs __attribute__((vector_size(sizeof(Vec))));
  int64_t pair;
  std::memcpy(&pair, from, sizeof pair);
  return (Vec)(pair - Pairs{});
}

// The sums of a tile: Rows rows of Outputs bundles. If Outputs is odd, half of the last registers
// may be nonsense.
template <int Rows, int Outputs>
struct Sums {
  static constexpr int kVecs = (Outputs + kPair - 1) / kPair;
  Vec sums[Rows * kSides][kVecs];

  // Calls work(sum, first output, offset, floats) for every register, `ld` floats from row to row.
  template <typename Work>
  inline void for_each(int64_t ld, const Work& work) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows * kSides; ++r) {
#pragma GCC unroll 32
      for (int v = 0; v < kVecs; ++v) {
        const int o = v * kPair, outputs = Outputs - o < kPair ? Outputs - o : kPair;
        work(sums[r][v], o, r / kSides * ld + o * prsr::kBundle + r % kSides * kLanes,
             kSides > 1 ? kLanes : outputs * prsr::kBundle);
      }
    }
  }

  inline void add(const float* from, int64_t ld) {
    for_each(ld, [&](Vec& sum, int, int64_t offset, int64_t count) {
      sum += in_turn(load_first(from + offset, count), kAllLanes);
    });
  }
};

// `strip` begins with the tile's first output.
template <int Rows, int Outputs>
void bundle_tile(const Product& p, const Strip<float>& strip, int64_t row) {
  Sums<Rows, Outputs> t;
  if (p.bias) {
    const float* const bias = p.bias + strip.column;
    t.for_each(0, [=](Vec& sum, int o, int64_t, int64_t) { sum = load_weights(bias + o); });
  } else {
    t.for_each(0, [](Vec& sum, int, int64_t, int64_t) { sum = Vec{}; });
  }
  const int64_t place = strip.column * prsr::kBundle;
  if (p.start) t.add(p.start + row * p.ld_start + place, p.ld_start);
  const float* w = strip.weights;
  for (int64_t s = 0; s < p.segments; ++s) {
    const int64_t segment = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    const float* a = p.in + segment * p.segment_stride + row * p.lda;
    for (int64_t i = 0; i < p.length; ++i, w += strip.width, a += prsr::kBundle) {
      Vec x[Rows * kSides];
      for (int r = 0; r < Rows * kSides; ++r) {
        x[r] = load_input(a + r / kSides * p.lda + r % kSides * kLanes);
      }
#pragma GCC unroll 32
      for (int v = 0; v < t.kVecs; ++v) {
        const Vec weight = load_weights(w + v * kPair);
#pragma GCC unroll 8
        for (int r = 0; r < Rows * kSides; ++r) t.sums[r][v] += x[r] * weight;
      }
    }
  }
  if (p.then) t.add(p.then + row * p.ld_then + place, p.ld_then);
  if (p.relu) {
    t.for_each(0, [](Vec& sum, int, int64_t, int64_t) { sum = max(sum, Vec{}); });
  }
  float* const out = p.out + row * p.ld_out + place;
  t.for_each(p.ld_out, [=](Vec& sum, int, int64_t offset, int64_t count) {
    store_first(out + offset, one_by_one(sum, kAllLanes), count);
  });
}

template <int Rows, int... Fewer>
inline void bundle_tile_of(const Product& p, const Strip<float>& strip, int64_t row,
                           int64_t outputs, std::integer_sequence<int, Fewer...>) {
  using Tile = void (*)(const Product&, const Strip<float>&, int64_t);
  static constexpr Tile kTiles[] = {bundle_tile<Rows, Fewer + 1>...};
  kTiles[outputs - 1](p, strip, row);
}

// The first of so many parts, if they are to have as many `units`. Most products are one part, and
// divisions are slow.
inline int64_t first_part(int64_t whole, int64_t parts, int64_t unit) {
  return parts == 1 ? whole : unit * ((whole + unit * parts - 1) / (unit * parts));
}

// Some rows, in tiles of `Rows`, strip by strip.
template <int Rows>
void bundle_rows(const Product& p, int64_t first_row, int64_t last_row) {
  constexpr int kMost = most_outputs(Rows);
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const float* weights = static_cast<const float*>(p.weights);
  int64_t first = 0;
  for (int64_t strips = (p.outputs + kStrip - 1) / kStrip; strips > 0; --strips) {
    const int64_t width = first_part(p.outputs - first, strips, 2);
    const float* const here = weights + p.first_input * width;
    int64_t column = 0;
    for (int64_t tiles = (width + kMost - 1) / kMost; tiles > 0; --tiles) {
      const int64_t outputs = first_part(width - column, tiles, kPair);
      for (int64_t row = first_row; row < last_row; row += Rows) {
        bundle_tile_of<Rows>(p, {first + column, here + column, width}, row, outputs,
                             std::make_integer_sequence<int, kMost>());
      }
      column += outputs;
    }
    first += width;
    weights += inputs * width;
  }
}

inline void bundles(const Product& p) {
  const int64_t middle = p.last_row - (p.last_row - p.first_row) % kBundleRows;
  if (p.first_row < middle) bundle_rows<kBundleRows>(p, p.first_row, middle);
  if (middle < p.last_row) bundle_rows<1>(p, middle, p.last_row);
}

// As much of a bundle as one register holds; half a register of AVX-512.
constexpr int kSide = kLanes < prsr::kBundle ? kLanes : prsr::kBundle;

typedef float Side __attribute__((vector_size(4 * kSide)));

// One half of a and of b, the second ones if First is half the lanes, lane by lane in turn.
template <int First, int... Lane>
inline Side interleave(Side a, Side b, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane % 2 * kSide + First + Lane / 2)...>(a, b);
}

// The numbers of a bundle, `count` of each picture, picture by picture `ld` apart. What is written
// is rounded up to kBundle numbers.
inline void part(const float* bundle, int64_t count, float* to, int64_t ld) {
  const std::make_integer_sequence<int, kSide> lanes;
  for (int64_t k = 0; k < count; k += kSide) {
    for (int64_t first = 0; first < prsr::kBundle; first += kSide) {
      Side rows[kSide] = {};
      for (int64_t i = 0; i < kSide && k + i < count; ++i) {
        std::memcpy(&rows[i], bundle + (k + i) * prsr::kBundle + first, sizeof(Side));
      }
      // Rows half of all apart are interleaved until rows have become columns.
      for (int round = 1; round < kSide; round *= 2) {
        Side next[kSide];
        for (int i = 0; i < kSide / 2; ++i) {
          const Side a = rows[i], b = rows[i + kSide / 2];
          next[2 * i] = interleave<0>(a, b, lanes);
          next[2 * i + 1] = interleave<kSide / 2>(a, b, lanes);
        }
        std::memcpy(rows, next, sizeof rows);
      }
      for (int64_t i = 0; i < kSide; ++i) {
        std::memcpy(to + (first + i) * ld + k, &rows[i], sizeof(Side));
      }
    }
  }
}

inline void compute(const Product& p) { p.bundle == 1 ? compute(p, Rows{}) : bundles(p); }

}  // namespace
