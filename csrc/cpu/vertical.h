// The vertical stack of one row. It depends on the rows above only, so all columns are computed at
// once.
#pragma once

#include "gate_and_draw.h"
#include "last_layer.h"
#include "row_context.h"

namespace {

// Columns per task of work_ahead(): few, because another member may soon wait for this one. Tiles
// take as long for one column as for all of their rows.
constexpr int64_t kColumnsAhead = kTiles ? 16 : 4;

// With operands of one type: floats, or pairs of bfloat16.
template <typename Operand>
class VerticalStack : RowContext {
 public:
  explicit VerticalStack(const RowContext& context) : RowContext(context) {}

  // The members share the columns of the row. A layer reads neighbouring columns of the layer
  // below, so a barrier follows each layer.
  void compute_row() {
    const int64_t c2 = 2 * c.features;
    const Share columns(j.width, member, team.size());
    if (!j.conditioning) conditioning_logits(columns);
    for (int64_t n = 0; n < count; ++n) first_layer(n, columns);
    for (int64_t l = 0; l < c.layers; ++l) {
      team.barrier();
      for (int64_t n = 0; n < count; ++n) {
        // These lines are written soon, and are in the last cache level or in memory by now.
        for (int64_t x = columns.first; x < columns.last; ++x) prefetch(above_at(n, l, x), c2 * b);
        Gemm<Operand> p = vertical_gemm(n, l, y);
        if (b == 1 && row_ahead(n) == static_cast<float>(y + 1)) {
          // All but the last input row was summed while the previous row was drawn.
          p.before = nullptr;
          p.in = vertical_at<Operand>(n, l, y);
          p.segments = 1;
          p.first_segment = 0;
          p.first_input = condition_operands + c.reach * p.length;
          p.bias = nullptr;
          p.start = ahead_at(n, l);
          p.ld_start = c2;
        }
        p.out = s.preactivations;
        p.first_row = columns.first;
        p.last_row = columns.last;
        compute(p);
        link(n, l, columns);
        if (l + 1 < c.layers) {
          Operand* const next = features_at(n, l + 1);
          for (int64_t x = columns.first; x < columns.last; ++x) {
            gate_features(s.preactivations + x * c2 * b, c.features, b,
                          next + x * vertical_operands * b);
          }
        }
      }
    }
    team.barrier();
  }

  // Sums, for some columns of one layer of the next row, the inputs that are already known: a task
  // that no other member has taken. Returns false if none is left.
  bool work_ahead() {
    const int64_t parts = (j.width + kColumnsAhead - 1) / kColumnsAhead;
    if (c.reach == 0 || y + 1 == j.height) return false;
    const int64_t task = team.next_task();
    if (task >= count * c.layers * parts) return false;
    const int64_t n = task / (c.layers * parts), l = task / parts % c.layers;
    Gemm<Operand> p = vertical_gemm(n, l, y + 1);
    --p.segments;  // the last row does not exist yet
    p.out = ahead_at(n, l);
    p.first_row = task % parts * kColumnsAhead;
    p.last_row = p.first_row + kColumnsAhead < j.width ? p.first_row + kColumnsAhead : j.width;
    compute(p);
    return true;
  }

  // Records that work_ahead() is complete.
  void note_work_ahead() {
    for (int64_t n = 0; n < count && c.reach > 0; ++n) row_ahead(n) = static_cast<float>(y + 2);
  }

 private:
  // The features of row y at the input of a layer.
  Operand* features_at(int64_t n, int64_t layer) const {
    return vertical_at<Operand>(n, layer, y) + c.reach * vertical_operands * b;
  }

  void conditioning_logits(const Share& columns) {
    for (int64_t i = 0; i < count * b; ++i) {
      const int64_t row = ((bundle * b + i) * j.height + y) * j.width;
      compute_logits(j.last.layer, j.last.features + row * j.last.inputs, j.last.inputs,
                     columns.first, columns.last, c.channels * c.levels, conditioning_at(i));
    }
  }

  void first_layer(int64_t n, const Share& columns) {
    Gemm<float> p = gemm<float>(net.first_vertical.weights, kRowStrip);
    p.in = values_at(n, y, 0);
    p.segments = c.first_reach;
    p.segment_stride = strides.value_row;
    p.length = (2 * c.first_reach + 1) * c.channels;
    p.lda = c.channels * b;
    p.bias = net.first_vertical.bias;
    p.outputs = c.features;
    p.ld_out = c.features * b;
    p.first_row = columns.first;
    p.last_row = columns.last;
    if constexpr (std::is_same_v<Operand, float>) {
      p.out = features_at(n, 0);
      compute(p);
    } else {
      p.out = s.preactivations;
      compute(p);
      for (int64_t x = columns.first; x < columns.last; ++x) {
        round_features(p.out + x * p.ld_out, c.features, b,
                       features_at(n, 0) + x * vertical_operands * b);
      }
    }
  }

  // The contribution of the pre-activations to the horizontal stack.
  void link(int64_t n, int64_t l, const Share& columns) {
    const int64_t c2 = 2 * c.features;
    Gemm<Operand> p = gemm<Operand>(net.blocks[l].link.weights, kRowStrip);
    read_condition(p, n, y);
    p.length = operands_for(c2, c.bf16);
    p.lda = p.length * b;
    if constexpr (std::is_same_v<Operand, float>) {
      p.in = s.preactivations;
    } else {
      Pair* const linked = reinterpret_cast<Pair*>(s.linked);
      for (int64_t x = columns.first; x < columns.last; ++x) {
        round_features(s.preactivations + x * c2 * b, c2, b, linked + x * p.lda);
      }
      p.in = linked;
    }
    p.first_input = condition_operands;
    p.inputs = condition_operands + p.length;
    p.bias = net.blocks[l].link.bias;
    p.outputs = c2;
    p.out = above_at(n, l, 0);
    p.ld_out = c.layers * c2 * b;
    p.tiles = &tiles;
    p.first_row = columns.first;
    p.last_row = columns.last;
    compute(p);
  }

  // With conditional gates, the conditioning features of a column precede the other inputs.
  void read_condition(Gemm<Operand>& p, int64_t n, int64_t row) const {
    if (c.gate_inputs == 0) return;
    p.before = condition_at<Operand>(n, row);
    p.ld_before = condition_operands * b;
    p.before_length = condition_operands;
  }

  // Rows y − p … y are stored in a ring: the segments start at its oldest row. Rows above the image
  // are zero and are skipped.
  Gemm<Operand> vertical_gemm(int64_t n, int64_t l, int64_t row) const {
    Gemm<Operand> p = gemm<Operand>(net.blocks[l].vertical.weights, kRowStrip);
    read_condition(p, n, row);
    p.in = vertical_at<Operand>(n, l, 0);
    p.ring = c.reach + 1;
    p.segments = row < c.reach ? row + 1 : p.ring;
    p.segment_stride = strides.vertical_row;
    p.first_segment = (row + 1 - p.segments) % p.ring;
    p.length = (2 * c.reach + 1) * vertical_operands;
    p.first_input = condition_operands + (p.ring - p.segments) * p.length;
    p.lda = vertical_operands * b;
    p.inputs = condition_operands + p.ring * p.length;
    p.bias = net.blocks[l].vertical.bias;
    p.outputs = 2 * c.features;
    p.ld_out = p.outputs * b;
    p.tiles = &tiles;
    return p;
  }
};

}  // namespace
