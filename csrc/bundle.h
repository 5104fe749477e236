// The product of product.h for bundles: lanes are images, and weights are broadcast.
//
// So nothing is padded, and each weight is read once for all images of a bundle. Weights come in
// strips of a few outputs, pairs of them dealt out evenly: [strip][input][width], for they are read
// in the order of memory then, which alone keeps up with the multiply-adds of single rows. An
// output is summed up in the order of product.h, so that an image's bits do not depend on whether
// it is drawn in a bundle.
#pragma once

#include "engine.h"
#include "product.h"

namespace {

// The most outputs of a strip: as many as a tile of AVX-512 or AVX2 has, for others' weights would
// only be in the way. In the vertical stack tiles have two rows, at a pixel often one.
constexpr int kRowStrip = kLanes > prsr::kBundle ? 24 : 6;
constexpr int kPixelStrip = kLanes > prsr::kBundle ? 24 : 12;

// Rows of a tile: with two, a weight is loaded for every other sum only.
constexpr int kBundleRows = 2;

// How tiles of so many rows hold numbers: those of `kPair` outputs in `kSides` registers. Where
// registers allow it, outputs go in pairs, in turn for each image: two weights are one broadcast
// then, and single rows are not bound by loads.
template <int Rows>
struct Form {
  static constexpr int kPair =
      kLanes > prsr::kBundle || (kLanes == prsr::kBundle && Rows == 1) ? 2 : 1;
  static constexpr int kSides = kPair * prsr::kBundle / kLanes;
  static constexpr int kRoom = kAccumulators / (Rows * kSides) * kPair;
  static constexpr int kMostOutputs = kRoom < kPixelStrip ? kRoom : kPixelStrip;
};

// From output by output to image by image: the lanes of one register, or those of two, half of
// the images in each.
template <int... Lane>
inline void in_turn(Vec (&v)[1], std::integer_sequence<int, Lane...>) {
  v[0] = shuffle<(Lane % 2 * prsr::kBundle + Lane / 2)...>(v[0], v[0]);
}

template <int... Lane>
inline void in_turn(Vec (&v)[2], std::integer_sequence<int, Lane...>) {
  const Vec first = v[0], second = v[1];
  v[0] = shuffle<(Lane % 2 * kLanes + Lane / 4 * 4 + Lane / 2 % 2)...>(first, second);
  v[1] = shuffle<(Lane % 2 * kLanes + Lane / 4 * 4 + Lane / 2 % 2 + 2)...>(first, second);
}

// And back.
template <int... Lane>
inline void one_by_one(Vec (&v)[1], std::integer_sequence<int, Lane...>) {
  v[0] = shuffle<(Lane % prsr::kBundle * 2 + Lane / prsr::kBundle)...>(v[0], v[0]);
}

template <int... Lane>
inline void one_by_one(Vec (&v)[2], std::integer_sequence<int, Lane...>) {
  const Vec first = v[0], second = v[1];
  v[0] = shuffle<(Lane / 2 % 2 * kLanes + Lane / 4 * 4 + Lane % 2 * 2)...>(first, second);
  v[1] = shuffle<(Lane / 2 % 2 * kLanes + Lane / 4 * 4 + Lane % 2 * 2 + 1)...>(first, second);
}

template <int... Lane>
inline Vec repeated(Vec v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane / 2)...>(v, v);
}

constexpr std::make_integer_sequence<int, kLanes> kAllLanes;

// The sums of a tile: Rows rows of Outputs bundles. If Outputs is odd, half of the last registers
// may be nonsense.
template <int Rows, int Outputs>
struct Sums {
  static constexpr int kPair = Form<Rows>::kPair, kSides = Form<Rows>::kSides;
  static constexpr int kPairs = (Outputs + kPair - 1) / kPair;
  using Numbers = Vec[kSides];  // of a pair of outputs
  Numbers sums[Rows][kPairs];

  // Calls work(sums, first output, offset, floats) for every pair, `ld` floats from row to row.
  template <typename Work>
  inline void for_each(int64_t ld, const Work& work) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 32
      for (int v = 0; v < kPairs; ++v) {
        const int o = v * kPair, outputs = Outputs - o < kPair ? Outputs - o : kPair;
        work(sums[r][v], o, r * ld + o * prsr::kBundle, outputs * prsr::kBundle);
      }
    }
  }

  // The weights, or biases, of a pair of outputs, for every image.
  static inline Vec load_weights(const float* from) {
    if constexpr (kPair == 1) return broadcast(*from);
    typedef int64_t Pairs __attribute__((vector_size(sizeof(Vec))));
    int64_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return (Vec)(pair - Pairs{});
  }

  // An input's bundle, for every output of a pair.
  static inline void load_input(const float* from, Numbers& x) {
    if constexpr (kPair == 1) {
      for (int side = 0; side < kSides; ++side) x[side] = load(from + side * kLanes);
    } else if constexpr (kSides == 1) {
      x[0] = repeated(load_first(from, prsr::kBundle), kAllLanes);
    } else {
      x[0] = x[1] = load(from);
      in_turn(x, kAllLanes);
    }
  }

  inline void begin(const float* bias) {
    for_each(0, [=](Numbers& sum, int o, int64_t, int64_t) {
      for (Vec& side : sum) side = bias ? load_weights(bias + o) : Vec{};
    });
  }

  inline void add(const float* from, int64_t ld) {
    for_each(ld, [=](Numbers& sum, int, int64_t offset, int64_t count) {
      Numbers more;
      for (int side = 0; side < kSides; ++side) {
        const int64_t left = count - side * kLanes;
        more[side] = left > 0 ? load_first(from + offset + side * kLanes, left) : Vec{};
      }
      if constexpr (kPair > 1) in_turn(more, kAllLanes);
      for (int side = 0; side < kSides; ++side) sum[side] += more[side];
    });
  }

  inline void end(float* out, int64_t ld, bool relu) {
    for_each(ld, [=](Numbers& sum, int, int64_t offset, int64_t count) {
      if constexpr (kPair > 1) one_by_one(sum, kAllLanes);
      for (int side = 0; side < kSides; ++side) {
        const int64_t left = count - side * kLanes;
        const Vec v = relu ? max(Vec{}, sum[side]) : sum[side];
        if (left > 0) store_first(out + offset + side * kLanes, v, left);
      }
    });
  }
};

// Adds `length` inputs of each row, `lda` floats apart, times their weights.
template <int Rows, int Outputs>
inline void add_inputs(const float* a, int64_t lda, int64_t length, const float* w, int64_t width,
                       Sums<Rows, Outputs>& t) {
  for (int64_t i = 0; i < length; ++i, w += width, a += prsr::kBundle) {
    typename Sums<Rows, Outputs>::Numbers x[Rows];
    for (int r = 0; r < Rows; ++r) t.load_input(a + r * lda, x[r]);
#pragma GCC unroll 32
    for (int v = 0; v < t.kPairs; ++v) {
      const Vec weights = t.load_weights(w + v * t.kPair);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        for (int side = 0; side < t.kSides; ++side) t.sums[r][v][side] += x[r][side] * weights;
      }
    }
  }
}

// `strip` begins with the tile's first output.
template <int Rows, int Outputs>
void bundle_tile(const Product& p, const Strip<float>& strip, int64_t row) {
  Sums<Rows, Outputs> t;
  p.bias ? t.begin(p.bias + strip.column) : t.begin(nullptr);
  const int64_t place = strip.column * prsr::kBundle;
  if (p.start) t.add(p.start + row * p.ld_start + place, p.ld_start);
  if (p.before) {
    add_inputs(p.before + row * p.ld_before, p.ld_before, p.before_length, strip.weights,
               strip.width, t);
  }
  const float* w = strip.weights + p.first_input * strip.width;
  for (int64_t s = 0; s < p.segments; ++s) {
    const int64_t segment = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    add_inputs(p.in + segment * p.segment_stride + row * p.lda, p.lda, p.length, w, strip.width, t);
    w += p.length * strip.width;
  }
  if (p.then) t.add(p.then + row * p.ld_then + place, p.ld_then);
  float* const out = p.out + row * p.ld_out + place;
  p.relu ? t.end(out, p.ld_out, true) : t.end(out, p.ld_out, false);
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
  constexpr int kMost = Form<Rows>::kMostOutputs;
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const float* weights = static_cast<const float*>(p.weights);
  int64_t first = 0;
  for (int64_t strips = (p.outputs + p.strip - 1) / p.strip; strips > 0; --strips) {
    const int64_t width = first_part(p.outputs - first, strips, 2);
    int64_t column = 0;
    for (int64_t tiles = (width + kMost - 1) / kMost; tiles > 0; --tiles) {
      const int64_t outputs = first_part(width - column, tiles, Form<Rows>::kPair);
      for (int64_t row = first_row; row < last_row; row += Rows) {
        bundle_tile_of<Rows>(p, {first + column, weights + column, width}, row, outputs,
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

// Exchanges the lanes `Distance` apart of rows `Distance` apart: done for all powers of two, that
// makes rows of columns.
template <int Distance, int... Lane>
inline void exchange(Side& a, Side& b, std::integer_sequence<int, Lane...>) {
  const Side first = a, second = b;
  a = shuffle<(Lane & Distance ? kSide + Lane - Distance : Lane)...>(first, second);
  b = shuffle<(Lane & Distance ? kSide + Lane : Lane + Distance)...>(first, second);
}

template <int Distance = 1>
inline void transpose(Side (&rows)[kSide]) {
  if constexpr (Distance < kSide) {
#pragma GCC unroll 8
    for (int i = 0; i < kSide; ++i) {
      if (i & Distance) continue;
      exchange<Distance>(rows[i], rows[i + Distance], std::make_integer_sequence<int, kSide>());
    }
    transpose<2 * Distance>(rows);
  }
}

// The numbers of a bundle, `count` of each image, image by image `ld` apart. What is written
// is rounded up to kBundle numbers.
inline void part(const float* bundle, int64_t count, float* to, int64_t ld) {
  for (int64_t k = 0; k < count; k += kSide) {
    for (int64_t first = 0; first < prsr::kBundle; first += kSide) {
      Side rows[kSide];
#pragma GCC unroll 8
      for (int64_t i = 0; i < kSide; ++i) {
        const int64_t row = k + i < count ? k + i : count - 1;  // there; what it holds, nobody asks
        std::memcpy(&rows[i], bundle + row * prsr::kBundle + first, sizeof(Side));
      }
      transpose(rows);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kSide; ++i) {
        std::memcpy(to + (first + i) * ld + k, &rows[i], sizeof(Side));
      }
    }
  }
}

inline void compute(const Product& p) { p.bundle == 1 ? compute(p, Rows{}) : bundles(p); }

}  // namespace
