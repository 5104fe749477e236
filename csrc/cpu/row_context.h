// The operands of one row of some images, and where each lies in memory.
#pragma once

#include "bundle_gemm.h"
#include "operands.h"

namespace {

using prsr::Block;
using prsr::Claims;
using prsr::Job;
using prsr::Layer;
using prsr::Network;
using prsr::PriorConfig;
using prsr::Scratch;
using prsr::Step;
using prsr::Team;

constexpr int64_t whole_lines(int64_t floats) { return (floats + kPanel - 1) / kPanel * kPanel; }

// The part of `count` consecutive items that one member computes: from `first` to before `last`.
struct Share {
  int64_t first, last;
  Share(int64_t count, int64_t member, int64_t members)
      : first(count * member / members), last(count * (member + 1) / members) {}
};

// The range of each colour group among features (or units): number c belongs to group c % D, so the
// first count % D groups have one element more than the others.
struct Groups {
  int64_t count, channels;
  int64_t begin_of(int64_t g) const {
    const int64_t more = count % channels;
    return g * (count / channels) + (g < more ? g : more);
  }
  int64_t end_of(int64_t g) const { return begin_of(g + 1); }
  int64_t size(int64_t g) const { return end_of(g) - begin_of(g); }

  // The same in operands, none of which holds elements of two groups.
  Groups operands(bool bf16) const {
    const int64_t fewest = count / channels;
    const int64_t smallest = operands_for(fewest, bf16), largest = operands_for(fewest + 1, bf16);
    return {channels * smallest + count % channels * (largest - smallest), channels};
  }
};

// Distances in floats or, in arrays of operands, in operands: from one bundle to the next, or from
// one row to the next.
struct Strides {
  int64_t value_row, values, vertical_row, vertical, above, ahead, horizontal, condition_row;
  Strides(const PriorConfig& c, const Job& j)
      : value_row((j.width + 2 * c.first_reach) * c.channels * j.bundle),
        values((j.height + c.first_reach) * value_row),
        vertical_row((j.width + 2 * c.reach) * operands_for(c.features, c.bf16) * j.bundle),
        vertical(c.layers * (c.reach + 1) * vertical_row),
        above(j.width * c.layers * 2 * c.features * j.bundle),
        ahead(c.layers * j.width * 2 * c.features + 1),
        horizontal((c.reach + j.width) * (c.layers + 1) *
                   Groups{c.features, c.channels}.operands(c.bf16).count * j.bundle),
        condition_row(j.width * operands_for(c.gate_inputs, c.bf16) * j.bundle) {}
};

// What one member of a team needs in order to draw row y of the bundles `bundle` … `bundle + count
// − 1`. Functions take the number n of a bundle, counted from `bundle`. Where the network has one
// number, there are `b` floats.
struct RowContext {
  RowContext(const PriorConfig& config, const Network& network, const Job& job,
             const Scratch& scratch, Tiles& tiles, Team& team, int64_t member, int64_t y,
             int64_t bundle, int64_t count)
      : c(config),
        net(network),
        j(job),
        s(scratch),
        tiles(tiles),
        team(team),
        member(member),
        y(y),
        bundle(bundle),
        count(count),
        b(job.bundle),
        strides(config, job),
        features{config.features, config.channels},
        units{config.units, config.channels},
        feature_operands(features.operands(config.bf16)),
        unit_operands(units.operands(config.bf16)),
        vertical_operands(operands_for(config.features, config.bf16)),
        condition_operands(operands_for(config.gate_inputs, config.bf16)) {}

  float* values_at(int64_t n, int64_t row, int64_t column) const {
    return j.values + (bundle + n) * strides.values + row * strides.value_row +
           column * c.channels * b;
  }
  template <typename Operand>
  Operand* vertical_at(int64_t n, int64_t layer, int64_t row) const {
    const int64_t slot = row % (c.reach + 1);
    return static_cast<Operand*>(j.vertical) + (bundle + n) * strides.vertical +
           (layer * (c.reach + 1) + slot) * strides.vertical_row;
  }
  float* above_at(int64_t n, int64_t layer, int64_t x) const {
    return j.above + (bundle + n) * strides.above + (x * c.layers + layer) * 2 * c.features * b;
  }
  template <typename Operand>
  Operand* horizontal_at(int64_t n, int64_t layer, int64_t column) const {
    return static_cast<Operand*>(j.horizontal) + (bundle + n) * strides.horizontal +
           (column * (c.layers + 1) + layer) * feature_operands.count * b;
  }
  float* ahead_at(int64_t n, int64_t layer) const {
    return j.ahead + (bundle + n) * strides.ahead + layer * j.width * 2 * c.features;
  }
  template <typename Operand>
  const Operand* condition_at(int64_t n, int64_t row) const {
    return static_cast<const Operand*>(j.features) +
           ((bundle + n) * j.height + row) * strides.condition_row;
  }
  // A GEMM of these weights, which come in strips of at most `strip` outputs.
  template <typename Operand>
  Gemm<Operand> gemm(const float* weights, int64_t strip) const {
    Gemm<Operand> p;
    p.bundle = b;
    p.weights = reinterpret_cast<const Operand*>(weights);
    p.strip = strip;
    return p;
  }
  // The row that the sums at ahead_at() belong to, counted from 1; 0 if none.
  float& row_ahead(int64_t n) const { return j.ahead[(bundle + n + 1) * strides.ahead - 1]; }
  float* given_at(int64_t layer) const { return s.given + layer * s.bundles * 2 * c.features * b; }
  template <typename Operand>
  Operand* gated_at(int64_t layer) const {
    return reinterpret_cast<Operand*>(s.gated) + layer * s.bundles * feature_operands.count * b;
  }
  // The conditioning logits of row y of image number `image`, counted from that of `bundle`, if
  // they are computed here.
  float* conditioning_at(int64_t image) const {
    return s.conditioning + image * j.width * c.channels * c.levels;
  }
  float* logits_at(int64_t x, int64_t g) const {
    return s.logits + (x * c.channels + g) % 2 * s.logits_size;
  }

  const PriorConfig& c;
  const Network& net;
  const Job& j;
  const Scratch& s;
  Tiles& tiles;  // of this member's thread
  Team& team;
  const int64_t member, y, bundle, count, b;
  const Strides strides;
  const Groups features, units, feature_operands, unit_operands;
  const int64_t vertical_operands, condition_operands;
};

}  // namespace
