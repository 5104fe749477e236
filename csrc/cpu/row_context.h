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
};

// Distances in floats: from one bundle to the next, or from one row to the next.
struct Strides {
  int64_t value_row, values, vertical_row, vertical, above, ahead, horizontal, condition_row;
  Strides(const PriorConfig& c, const Job& j)
      : value_row((j.width + 2 * c.first_reach) * c.channels * j.bundle),
        values((j.height + c.first_reach) * value_row),
        vertical_row((j.width + 2 * c.reach) * c.features * j.bundle),
        vertical(c.layers * (c.reach + 1) * vertical_row),
        above(j.width * c.layers * 2 * c.features * j.bundle),
        ahead(c.layers * j.width * 2 * c.features + 1),
        horizontal((c.reach + j.width) * (c.layers + 1) * c.features * j.bundle),
        condition_row(j.width * c.gate_inputs * j.bundle) {}
};

// What one member of a team needs in order to draw row y of the bundles `bundle` … `bundle + count
// − 1`. Functions take the number n of a bundle, counted from `bundle`. Where the network has one
// number, there are `b` floats.
struct RowContext {
  RowContext(const PriorConfig& config, const Network& network, const Job& job,
             const Scratch& scratch, Team& team, int64_t member, int64_t y, int64_t bundle,
             int64_t count)
      : c(config),
        net(network),
        j(job),
        s(scratch),
        team(team),
        member(member),
        y(y),
        bundle(bundle),
        count(count),
        b(job.bundle),
        strides(config, job),
        features{config.features, config.channels},
        units{config.units, config.channels} {}

  float* values_at(int64_t n, int64_t row, int64_t column) const {
    return j.values + (bundle + n) * strides.values + row * strides.value_row +
           column * c.channels * b;
  }
  float* vertical_at(int64_t n, int64_t layer, int64_t row) const {
    const int64_t slot = row % (c.reach + 1);
    return j.vertical + (bundle + n) * strides.vertical +
           (layer * (c.reach + 1) + slot) * strides.vertical_row;
  }
  float* above_at(int64_t n, int64_t layer, int64_t x) const {
    return j.above + (bundle + n) * strides.above + (x * c.layers + layer) * 2 * c.features * b;
  }
  float* horizontal_at(int64_t n, int64_t layer, int64_t column) const {
    return j.horizontal + (bundle + n) * strides.horizontal +
           (column * (c.layers + 1) + layer) * c.features * b;
  }
  float* ahead_at(int64_t n, int64_t layer) const {
    return j.ahead + (bundle + n) * strides.ahead + layer * j.width * 2 * c.features;
  }
  const float* condition_at(int64_t n, int64_t row) const {
    return j.features + ((bundle + n) * j.height + row) * strides.condition_row;
  }
  // A GEMM whose weights come in strips of at most `strip` outputs.
  Gemm gemm(int64_t strip) const {
    Gemm p;
    p.bundle = b;
    p.strip = strip;
    return p;
  }
  // The row that the sums at ahead_at() belong to, counted from 1; 0 if none.
  float& row_ahead(int64_t n) const { return j.ahead[(bundle + n + 1) * strides.ahead - 1]; }
  float* given_at(int64_t layer) const { return s.given + layer * s.bundles * 2 * c.features * b; }
  float* gated_at(int64_t layer) const { return s.gated + layer * s.bundles * c.features * b; }
  float* logits_at(int64_t x, int64_t g) const {
    return s.logits + (x * c.channels + g) % 2 * s.logits_size;
  }

  const PriorConfig& c;
  const Network& net;
  const Job& j;
  const Scratch& s;
  Team& team;
  const int64_t member, y, bundle, count, b;
  const Strides strides;
  const Groups features, units;
};

}  // namespace
