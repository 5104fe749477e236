// The product of gemm.h for bundles: lanes are images, and weights are broadcast.
//
// Nothing is padded, and each weight is read once for all images of a bundle. Weights come in
// strips of a few outputs, [strip][input][width], with nearly equal even widths, so that they are
// read in memory order; only then do loads keep up with the multiply-adds of a single row. Outputs
// are summed in the order of gemm.h, so that an image has the same bits in a bundle and alone.
#pragma once

#include "gemm.h"
#include "operands.h"
#include "tile_gemm.h"

namespace {

// The most outputs of a strip: those of one register tile, because the weights of others would only
// take space in the cache. Tiles have two rows in the vertical stack, and often one at a pixel.
constexpr int kRowStrip = kLanes > prsr::kBundle ? 24 : 6;
constexpr int kPixelStrip = kLanes > prsr::kBundle ? 24 : 12;

// Rows of a tile. With two, each loaded weight serves two sums.
constexpr int kBundleRows = 2;

// How a tile with this number of rows is held in registers: `kPair` outputs take `kSides`
// registers. Where the registers allow it, two outputs are interleaved image by image: one 64-bit
// broadcast then loads both weights, and single rows are not limited by loads.
template <int Rows>
struct TileShape {
  static constexpr int kPair =
      kLanes > prsr::kBundle || (kLanes == prsr::kBundle && Rows == 1) ? 2 : 1;
  static constexpr int kSides = kPair * prsr::kBundle / kLanes;
  static constexpr int kRoom = kAccumulators / (Rows * kSides) * kPair;
  static constexpr int kMostOutputs = kRoom < kPixelStrip ? kRoom : kPixelStrip;
};

// Reorders the lanes of a pair of outputs, in one register or two, from output by output to image
// by image.
template <typename V, int... Lane>
inline void interleave(V (&v)[1], std::integer_sequence<int, Lane...>) {
  v[0] = shuffle<(Lane % 2 * prsr::kBundle + Lane / 2)...>(v[0], v[0]);
}

template <typename V, int... Lane>
inline void interleave(V (&v)[2], std::integer_sequence<int, Lane...>) {
  const V first = v[0], second = v[1];
  v[0] = shuffle<(Lane % 2 * kLanes + Lane / 4 * 4 + Lane / 2 % 2)...>(first, second);
  v[1] = shuffle<(Lane % 2 * kLanes + Lane / 4 * 4 + Lane / 2 % 2 + 2)...>(first, second);
}

// The inverse of interleave().
template <int... Lane>
inline void deinterleave(Vec (&v)[1], std::integer_sequence<int, Lane...>) {
  v[0] = shuffle<(Lane % prsr::kBundle * 2 + Lane / prsr::kBundle)...>(v[0], v[0]);
}

template <int... Lane>
inline void deinterleave(Vec (&v)[2], std::integer_sequence<int, Lane...>) {
  const Vec first = v[0], second = v[1];
  v[0] = shuffle<(Lane / 2 % 2 * kLanes + Lane / 4 * 4 + Lane % 2 * 2)...>(first, second);
  v[1] = shuffle<(Lane / 2 % 2 * kLanes + Lane / 4 * 4 + Lane % 2 * 2 + 1)...>(first, second);
}

template <typename V, int... Lane>
inline V repeated(V v, std::integer_sequence<int, Lane...>) {
  return shuffle<(Lane / 2)...>(v, v);
}

constexpr std::make_integer_sequence<int, kLanes> kAllLanes;

// The sums of a tile: Rows rows of Outputs bundles. If Outputs is odd, half of the last registers
// are undefined where outputs are paired.
template <int Rows, int Outputs>
struct Sums {
  static constexpr int kPair = TileShape<Rows>::kPair, kSides = TileShape<Rows>::kSides;
  static constexpr int kPairs = (Outputs + kPair - 1) / kPair;
  using Registers = Vec[kSides];  // one pair of outputs
  Registers sums[Rows][kPairs];

  // Calls work(sums, first output, offset, floats) for every pair; rows are `ld` floats apart.
  template <typename Work>
  PRSR_INLINE void for_each(int64_t ld, const Work& work) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 32
      for (int v = 0; v < kPairs; ++v) {
        const int o = v * kPair, outputs = Outputs - o < kPair ? Outputs - o : kPair;
        work(sums[r][v], o, r * ld + o * prsr::kBundle, outputs * prsr::kBundle);
      }
    }
  }

  // The weights, or biases, of a pair of outputs, repeated for every image.
  template <typename T>
  static PRSR_INLINE VecOf<T> load_weights(const T* from) {
    if constexpr (kPair == 1) return broadcast(*from);
    typedef int64_t Pairs __attribute__((vector_size(sizeof(Vec))));
    int64_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return (VecOf<T>)(pair - Pairs{});
  }

  // The bundle of one input, repeated for every output of a pair.
  template <typename Operand>
  static PRSR_INLINE void load_input(const Operand* from, VecOf<Operand> (&x)[kSides]) {
    if constexpr (kPair == 1) {
      for (int side = 0; side < kSides; ++side) x[side] = load(from + side * kLanes);
    } else if constexpr (kSides == 1) {
      x[0] = repeated(load_first(from, prsr::kBundle), kAllLanes);
    } else {
      x[0] = x[1] = load(from);
      interleave(x, kAllLanes);
    }
  }

  PRSR_INLINE void begin(const float* bias) {
    for_each(0, [=](Registers& sum, int o, int64_t, int64_t) {
      for (Vec& side : sum) side = bias ? load_weights(bias + o) : Vec{};
    });
  }

  PRSR_INLINE void add(const float* from, int64_t ld) {
    for_each(ld, [=](Registers& sum, int, int64_t offset, int64_t count) {
      Registers more;
      for (int side = 0; side < kSides; ++side) {
        const int64_t left = count - side * kLanes;
        more[side] = left > 0 ? load_first(from + offset + side * kLanes, left) : Vec{};
      }
      if constexpr (kPair > 1) interleave(more, kAllLanes);
      for (int side = 0; side < kSides; ++side) sum[side] += more[side];
    });
  }

  PRSR_INLINE void end(float* out, int64_t ld, bool relu) {
    for_each(ld, [=](Registers& sum, int, int64_t offset, int64_t count) {
      if constexpr (kPair > 1) deinterleave(sum, kAllLanes);
      for (int side = 0; side < kSides; ++side) {
        const int64_t left = count - side * kLanes;
        const Vec v = relu ? max(Vec{}, sum[side]) : sum[side];
        if (left > 0) store_first(out + offset + side * kLanes, v, left);
      }
    });
  }
};

// Adds the products of `length` inputs of each row, `lda` apart, with their weights.
template <typename Operand, int Rows, int Outputs>
PRSR_INLINE void add_inputs(const Operand* a, int64_t lda, int64_t length, const Operand* w,
                            int64_t width, Sums<Rows, Outputs>& t) {
  using Tile = Sums<Rows, Outputs>;
  for (int64_t i = 0; i < length; ++i, w += width, a += prsr::kBundle) {
    VecOf<Operand> x[Rows][Tile::kSides];
    for (int r = 0; r < Rows; ++r) Tile::load_input(a + r * lda, x[r]);
#pragma GCC unroll 32
    for (int v = 0; v < Tile::kPairs; ++v) {
      const auto weights = Tile::load_weights(w + v * Tile::kPair);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        for (int side = 0; side < Tile::kSides; ++side) {
          Vec& sum = t.sums[r][v][side];
          sum = multiply_add(sum, x[r][side], weights);
        }
      }
    }
  }
}

// Adds the products of the nonzero inputs.
template <typename Operand, int Rows, int Outputs>
PRSR_INLINE void add_nonzero(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                             Sums<Rows, Outputs>& t) {
  const auto weights_of = [&](int64_t i) { return strip.weights + p.nonzero[i] * strip.width; };
  for (int64_t i = 0; i < p.nonzero_count; ++i) {
    const int64_t ahead = i + kInputsAhead < p.nonzero_count ? i + kInputsAhead : i;
    for (int o = 0; o < Outputs; o += kPanel) __builtin_prefetch(weights_of(ahead) + o);
    add_inputs(p.in + row * p.lda + p.nonzero[i] * prsr::kBundle, p.lda, 1, weights_of(i),
               strip.width, t);
  }
}

// `strip` begins with the first output of the tile.
template <typename Operand, int Rows, int Outputs>
void bundle_tile(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row) {
  Sums<Rows, Outputs> t;
  p.bias ? t.begin(p.bias + strip.column) : t.begin(nullptr);
  const int64_t place = strip.column * prsr::kBundle;
  if (p.start) t.add(p.start + row * p.ld_start + place, p.ld_start);
  if (p.before) {
    add_inputs(p.before + row * p.ld_before, p.ld_before, p.before_length, strip.weights,
               strip.width, t);
  }
  if (p.nonzero) add_nonzero(p, strip, row, t);
  const Operand* w = strip.weights + p.first_input * strip.width;
  for (int64_t s = 0; s < p.segments && !p.nonzero; ++s) {
    const int64_t segment = p.ring > 1 ? (p.first_segment + s) % p.ring : s;
    add_inputs(p.in + segment * p.segment_stride + row * p.lda, p.lda, p.length, w, strip.width, t);
    w += p.length * strip.width;
  }
  if (p.then) t.add(p.then + row * p.ld_then + place, p.ld_then);
  float* const out = p.out + row * p.ld_out + place;
  p.relu ? t.end(out, p.ld_out, true) : t.end(out, p.ld_out, false);
}

template <int Rows, typename Operand, int... Fewer>
inline void bundle_tile_of(const Gemm<Operand>& p, const Strip<Operand>& strip, int64_t row,
                           int64_t outputs, std::integer_sequence<int, Fewer...>) {
  using Tile = void (*)(const Gemm<Operand>&, const Strip<Operand>&, int64_t);
  static constexpr Tile kTiles[] = {bundle_tile<Operand, Rows, Fewer + 1>...};
  kTiles[outputs - 1](p, strip, row);
}

// Size of the first of `parts` nearly equal parts, a multiple of `unit`. Most GEMMs are one part,
// and divisions are slow.
inline int64_t first_part(int64_t whole, int64_t parts, int64_t unit) {
  return parts == 1 ? whole : unit * ((whole + unit * parts - 1) / (unit * parts));
}

// Some rows, strip by strip, in tiles of `Rows` rows.
template <int Rows, typename Operand>
void bundle_rows(const Gemm<Operand>& p, int64_t first_row, int64_t last_row) {
  constexpr int kMost = TileShape<Rows>::kMostOutputs;
  const int64_t inputs = p.inputs ? p.inputs : p.segments * p.length;
  const Operand* weights = p.weights;
  int64_t first = 0;
  for (int64_t strips = (p.outputs + p.strip - 1) / p.strip; strips > 0; --strips) {
    const int64_t width = first_part(p.outputs - first, strips, 2);
    int64_t column = 0;
    for (int64_t tiles = (width + kMost - 1) / kMost; tiles > 0; --tiles) {
      const int64_t outputs = first_part(width - column, tiles, TileShape<Rows>::kPair);
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

template <typename Operand>
inline void bundles(const Gemm<Operand>& p) {
  const int64_t middle = p.last_row - (p.last_row - p.first_row) % kBundleRows;
  if (p.first_row < middle) bundle_rows<kBundleRows>(p, p.first_row, middle);
  if (middle < p.last_row) bundle_rows<1>(p, middle, p.last_row);
}

// The part of a bundle that one register holds; half a register of AVX-512.
constexpr int kSide = kLanes < prsr::kBundle ? kLanes : prsr::kBundle;

typedef float Side __attribute__((vector_size(4 * kSide)));

// Exchanges lanes `Distance` apart of rows `Distance` apart. Doing so for all powers of two
// transposes a square.
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

// Splits a bundle: writes the `count` floats of each image to row `ld` floats apart. Rounds what it
// writes up to a multiple of kBundle floats.
inline void split_bundle(const float* bundle, int64_t count, float* to, int64_t ld) {
  for (int64_t k = 0; k < count; k += kSide) {
    for (int64_t first = 0; first < prsr::kBundle; first += kSide) {
      Side rows[kSide];
#pragma GCC unroll 8
      for (int64_t i = 0; i < kSide; ++i) {
        const int64_t row = k + i < count ? k + i : count - 1;  // a valid address; the value is not
                                                                // used
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

template <typename Operand>
inline void compute(const Gemm<Operand>& p) {
  if constexpr (kTiles && std::is_same_v<Operand, Pair>) {
    if (p.tiles) return compute_by_tiles(p);
  }
  p.bundle == 1 ? compute(p, Rows{}) : bundles(p);
}

}  // namespace
