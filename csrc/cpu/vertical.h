// The vertical stack of one row. It depends on the rows above only, so all columns are computed at
// once.
#pragma once

#include "gate_and_draw.h"
#include "row_context.h"

namespace {

// Columns per task of work_ahead(): few, because another member may soon wait for this one.
constexpr int64_t kColumnsAhead = 4;

class VerticalStack : RowContext {
 public:
  explicit VerticalStack(const RowContext& context) : RowContext(context) {}

  // The members share the columns of the row. A layer reads neighbouring columns of the layer
  // below, so a barrier follows each layer.
  void compute_row() {
    const int64_t c2 = 2 * c.features;
    const Share columns(j.width, member, team.size());
    for (int64_t n = 0; n < count; ++n) {
      Gemm p = gemm(kRowStrip);
      p.in = values_at(n, y, 0);
      p.segments = c.first_reach;
      p.segment_stride = strides.value_row;
      p.length = (2 * c.first_reach + 1) * c.channels;
      p.lda = c.channels * b;
      p.weights = net.first_vertical.weights;
      p.bias = net.first_vertical.bias;
      p.outputs = c.features;
      p.out = vertical_at(n, 0, y) + c.reach * c.features * b;
      p.ld_out = c.features * b;
      p.first_row = columns.first;
      p.last_row = columns.last;
      compute(p);
    }
    for (int64_t l = 0; l < c.layers; ++l) {
      const Block& block = net.blocks[l];
      team.barrier();
      for (int64_t n = 0; n < count; ++n) {
        // These lines are written soon, and are in the last cache level or in memory by now.
        for (int64_t x = columns.first; x < columns.last; ++x) prefetch(above_at(n, l, x), c2 * b);
        Gemm p = vertical_gemm(n, l, y);
        if (b == 1 && row_ahead(n) == static_cast<float>(y + 1)) {
          // All but the last input row was summed while the previous row was drawn.
          p.before = nullptr;
          p.in = vertical_at(n, l, y);
          p.segments = 1;
          p.first_segment = 0;
          p.first_input = c.gate_inputs + c.reach * p.length;
          p.bias = nullptr;
          p.start = ahead_at(n, l);
          p.ld_start = c2;
        }
        p.out = s.preactivations;
        p.first_row = columns.first;
        p.last_row = columns.last;
        compute(p);

        Gemm q = gemm(kRowStrip);
        read_condition(q, n, y);
        q.in = s.preactivations;
        q.length = c2;
        q.lda = c2 * b;
        q.first_input = c.gate_inputs;
        q.inputs = c.gate_inputs + c2;
        q.weights = block.link.weights;
        q.bias = block.link.bias;
        q.outputs = c2;
        q.out = above_at(n, l, 0);
        q.ld_out = c.layers * c2 * b;
        q.first_row = columns.first;
        q.last_row = columns.last;
        compute(q);

        if (l + 1 < c.layers) {
          float* const next = vertical_at(n, l + 1, y) + c.reach * c.features * b;
          for (int64_t x = columns.first; x < columns.last; ++x) {
            gate_features(s.preactivations + x * c2 * b, c.features * b, next + x * c.features * b);
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
    Gemm p = vertical_gemm(n, l, y + 1);
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
  // With conditional gates, the conditioning features of a column precede the other inputs.
  void read_condition(Gemm& p, int64_t n, int64_t row) const {
    if (c.gate_inputs == 0) return;
    p.before = condition_at(n, row);
    p.ld_before = c.gate_inputs * b;
    p.before_length = c.gate_inputs;
  }

  // Rows y − p … y are stored in a ring: the segments start at its oldest row. Rows above the image
  // are zero and are skipped.
  Gemm vertical_gemm(int64_t n, int64_t l, int64_t row) const {
    Gemm p = gemm(kRowStrip);
    read_condition(p, n, row);
    p.in = vertical_at(n, l, 0);
    p.ring = c.reach + 1;
    p.segments = row < c.reach ? row + 1 : p.ring;
    p.segment_stride = strides.vertical_row;
    p.first_segment = (row + 1 - p.segments) % p.ring;
    p.length = (2 * c.reach + 1) * c.features;
    p.first_input = c.gate_inputs + (p.ring - p.segments) * p.length;
    p.lda = c.features * b;
    p.weights = net.blocks[l].vertical.weights;
    p.inputs = c.gate_inputs + p.ring * p.length;
    p.bias = net.blocks[l].vertical.bias;
    p.outputs = 2 * c.features;
    p.ld_out = p.outputs * b;
    return p;
  }
};

}  // namespace
