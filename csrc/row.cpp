// One row of pictures: the vertical stack at once, then pixel by pixel the horizontal stack, the
// head and the draw. Compiled once per instruction set; PRSR_DRAW_ROW is the name it gets.
//
// Every multiply-add of the network is done once a picture, all of them by product.h. The network
// is that of van den Oord et al. (arXiv 1606.05328), the caches those of Ramachandran et al.
// (arXiv 1704.06001).
#include "engine.h"
#include "product.h"

namespace {

using prsr::Block;
using prsr::Config;
using prsr::Job;
using prsr::Layer;
using prsr::Network;
using prsr::Scratch;
using prsr::Team;

// A member's share of `count` things in a row: from `first` to before `last`.
struct Share {
  int64_t first, last;
  Share(int64_t count, int64_t member, int64_t members)
      : first(count * member / members), last(count * (member + 1) / members) {}
};

// The places of the features (or units) of each colour group: number c belongs to group c % D, so
// the groups below count % D have one more than the others.
struct Groups {
  int64_t count, channels;
  int64_t begin_of(int64_t g) const {
    const int64_t more = count % channels;
    return g * (count / channels) + (g < more ? g : more);
  }
  int64_t end_of(int64_t g) const { return begin_of(g + 1); }
  int64_t size(int64_t g) const { return end_of(g) - begin_of(g); }
};

// How far one picture's numbers lie from the next one's.
struct Strides {
  int64_t value_row, values, vertical_row, vertical, above, horizontal, picture;
  Strides(const Config& c, const Job& j)
      : value_row((j.width + 2 * c.first_reach) * c.channels),
        values((j.height + c.first_reach) * value_row),
        vertical_row((j.width + 2 * c.reach) * c.features),
        vertical(c.layers * (c.reach + 1) * vertical_row),
        above(c.layers * j.width * 2 * c.features),
        horizontal((c.layers + 1) * (c.reach + j.width) * c.features),
        picture(c.channels * j.height * j.width) {}
};

// tanh(a₁)·σ(a₂) of `size` features, a₂ behind a₁.
inline void gate_features(const float* a, int64_t size, float* out) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const Vec first = load_first(a + i, size - i), second = load_first(a + size + i, size - i);
    store_first(out + i, gate(first, second), size - i);
  }
}

// e to the (logits / temperature), and the smallest level whose sum of them exceeds u of the whole.
// SPEC, section 2: greedy at 0, and rounding never selects a level without mass.
inline int64_t draw(float* logits, int64_t levels, float u, float temperature) {
  const int64_t padded = (levels + kPanel - 1) / kPanel * kPanel;
  for (int64_t k = levels; k < padded; ++k) logits[k] = -__builtin_inff();
  Vec most = load(logits);
  for (int64_t k = kLanes; k < padded; k += kLanes) most = max(most, load(logits + k));
  const float peak = largest(most);
  if (!(temperature > 0)) {
    int64_t level = 0;
    while (logits[level] < peak) ++level;
    return level;
  }
  // Sums over 16 levels first: a running sum over all of them would wait for each addition.
  float* const sums = logits + padded;
  float total = 0;
  for (int64_t k = 0; k < padded; k += kPanel) {
    Vec part = Vec{};
    for (int64_t v = k; v < k + kPanel; v += kLanes) {
      const Vec mass = exp((load(logits + v) - peak) / temperature);
      store(logits + v, mass);
      part += mass;
    }
    sums[k / kPanel] = sum(part);
    total += sums[k / kPanel];
  }
  const float target = u * total;
  float before = 0;
  int64_t last = 0;  // with mass, of those looked at
  for (int64_t k = 0; k < padded; k += kPanel) {
    const float mass = sums[k / kPanel];
    if (before + mass <= target) {
      before += mass;
      if (mass > 0) last = k;  // if rounding leaves no later one, the level is in this part
      continue;
    }
    float running = before;
    for (int64_t level = k; level < k + kPanel; ++level) {
      running += logits[level];
      if (logits[level] > 0) last = level;
      if (running > target && logits[level] > 0) return level;
    }
    return last;
  }
  for (int64_t level = last; level < padded && level < last + kPanel; ++level) {
    if (logits[level] > 0) last = level;
  }
  return last;
}

// One member's part in one row of some pictures.
class RowOfPictures {
 public:
  RowOfPictures(const Config& config, const Network& network, const Job& job,
                const Scratch& scratch, Team& team, int64_t member, int64_t y)
      : c(config),
        net(network),
        j(job),
        s(scratch),
        team(team),
        member(member),
        y(y),
        strides(config, job),
        features{config.features, config.channels},
        units{config.units, config.channels} {}

  // Draws the images `first` … `first + n − 1`. The chain from colour to colour is one member's;
  // meanwhile the others add up what the earlier colours give to the next logits.
  void draw_images(int64_t first, int64_t n) {
    image = first;
    count = n;
    const bool leads = member == 0;
    turn_conditioning();
    vertical_stack();
    cached_taps(0);
    team.meet();
    for (int64_t x = 0; x < j.width; ++x) {
      for (int64_t g = 0; g < c.channels; ++g) {
        if (leads) {
          chain(x, g);
        } else {
          logits_of_earlier_colours(x, g);
        }
        team.meet();
        logits_of_own_colour(x, g);
        if (g + 1 == c.channels && x + 1 < j.width) cached_taps(x + 1);
        team.meet();
        if (leads) {
          for (int64_t i = 0; i < count; ++i) choose(i, x, g);
        }
      }
    }
    team.meet();
  }

 private:
  float* values_at(int64_t n, int64_t row, int64_t column) const {
    return j.values + (image + n) * strides.values + row * strides.value_row + column * c.channels;
  }
  float* vertical_at(int64_t n, int64_t layer, int64_t row) const {
    const int64_t slot = row % (c.reach + 1);
    return j.vertical + (image + n) * strides.vertical +
           (layer * (c.reach + 1) + slot) * strides.vertical_row;
  }
  float* above_at(int64_t n, int64_t layer, int64_t x) const {
    return j.above + (image + n) * strides.above + (layer * j.width + x) * 2 * c.features;
  }
  float* horizontal_at(int64_t n, int64_t layer, int64_t column) const {
    return j.horizontal + (image + n) * strides.horizontal +
           (layer * (c.reach + j.width) + column) * c.features;
  }
  float* conditioning_at(int64_t n, int64_t x, int64_t g) const {
    return s.conditioning + ((n * j.width + x) * c.channels + g) * c.levels;
  }
  // Two sub-pixels' in turn: while one is drawn, the next one's are begun.
  float* logits_at(int64_t x, int64_t g) const {
    return s.logits + (x * c.channels + g) % 2 * s.images * s.logits_stride;
  }

  // Conditioning logits of this row with the levels side by side.
  void turn_conditioning() {
    const int64_t plane = j.height * j.width;
    const Share columns(j.width, member, team.size());
    for (int64_t n = 0; n < count; ++n) {
      const float* from =
          j.conditioning + (image + n) * c.levels * c.channels * plane + y * j.width;
      for (int64_t g = 0; g < c.channels; ++g) {
        // A few levels at a time fill whole lines of the result while they are in the cache.
        for (int64_t part = 0; part < c.levels; part += kPanel) {
          const int64_t end = part + kPanel < c.levels ? part + kPanel : c.levels;
          for (int64_t x = columns.first; x < columns.last; ++x) {
            float* const to = conditioning_at(n, x, g);
            for (int64_t k = part; k < end; ++k) to[k] = from[(k * c.channels + g) * plane + x];
          }
        }
      }
    }
  }

  // Members share the columns of a row. Each layer looks at its neighbours', so they meet.
  void vertical_stack() {
    const int64_t c2 = 2 * c.features;
    const Share columns(j.width, member, team.size());
    for (int64_t n = 0; n < count; ++n) {
      Product p;
      p.in = values_at(n, y, 0);
      p.segments = c.first_reach;
      p.segment_stride = strides.value_row;
      p.length = (2 * c.first_reach + 1) * c.channels;
      p.lda = c.channels;
      p.weights = net.first_vertical.weights;
      p.bias = net.first_vertical.bias;
      p.outputs = c.features;
      p.out = vertical_at(n, 0, y) + c.reach * c.features;
      p.ld_out = c.features;
      p.first_row = columns.first;
      p.last_row = columns.last;
      compute(p);
    }
    for (int64_t l = 0; l < c.layers; ++l) {
      const Block& block = net.blocks[l];
      team.meet();
      for (int64_t n = 0; n < count; ++n) {
        // Rows y − p … y lie in a ring: first those from its seam on, then those before it.
        Product p;
        p.in = vertical_at(n, l, 0);
        p.segments = c.reach + 1;
        p.segment_stride = strides.vertical_row;
        p.first_segment = (y + 1) % (c.reach + 1);
        p.length = (2 * c.reach + 1) * c.features;
        p.lda = c.features;
        p.weights = block.vertical.weights;
        p.bias = block.vertical.bias;
        p.outputs = c2;
        p.out = s.preactivations;
        p.ld_out = c2;
        p.first_row = columns.first;
        p.last_row = columns.last;
        compute(p);

        Product q;
        q.in = s.preactivations;
        q.length = q.lda = c2;
        q.weights = block.link.weights;
        q.bias = block.link.bias;
        q.outputs = c2;
        q.out = above_at(n, l, 0);
        q.ld_out = c2;
        q.first_row = columns.first;
        q.last_row = columns.last;
        compute(q);

        if (l + 1 < c.layers) {
          float* const next = vertical_at(n, l + 1, y) + c.reach * c.features;
          for (int64_t x = columns.first; x < columns.last; ++x) {
            gate_features(s.preactivations + x * c2, c.features, next + x * c.features);
          }
        }
      }
    }
    team.meet();
  }

  // What the pixels to the left give to pixel x in every block; members share the blocks.
  void cached_taps(int64_t x) {
    const int64_t c2 = 2 * c.features;
    const Share layers(c.layers, member, team.size());
    for (int64_t l = layers.first; l < layers.last; ++l) {
      Product p;
      p.in = horizontal_at(0, l, x);
      p.length = c.reach * c.features;
      p.lda = strides.horizontal;
      p.weights = net.blocks[l].taps;
      p.outputs = c2;
      p.start = above_at(0, l, x);
      p.ld_start = strides.above;
      p.out = s.given + l * s.images * c2;
      p.ld_out = c2;
      p.last_row = count;
      compute(p);
    }
  }

  // What must run in sequence for colour g of pixel x: first layer, blocks, hidden units.
  void chain(int64_t x, int64_t g) {
    const int64_t c2 = 2 * c.features, pixel = c.reach + x;
    const int64_t begin = features.begin_of(g), end = features.end_of(g), size = features.size(g);
    if (g == 0) first_layer_left(x);
    if (g > 0) {
      Product p;
      p.in = values_at(0, c.first_reach + y, c.first_reach + x);
      p.length = g;
      p.lda = strides.values;
      p.weights = net.first_own[g];
      p.outputs = size;
      p.start = p.out = horizontal_at(0, 0, pixel) + begin;
      p.ld_start = p.ld_out = strides.horizontal;
      p.last_row = count;
      compute(p);
    }
    for (int64_t l = 0; l < c.layers; ++l) {
      const Layer& mix = net.blocks[l].mix[g];
      float* const gated = s.gated + l * s.images * c.features;
      Product p;
      p.in = horizontal_at(0, l, pixel);
      p.length = end;
      p.lda = strides.horizontal;
      p.weights = net.blocks[l].centre[g];
      p.outputs = 2 * size;
      p.start = s.given + l * s.images * c2 + 2 * begin;
      p.ld_start = c2;
      p.out = s.chain;
      p.ld_out = s.chain_stride;
      p.last_row = count;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        gate_features(s.chain + n * s.chain_stride, size, gated + n * c.features + begin);
      }
      Product q;
      q.in = gated;
      q.length = end;
      q.lda = c.features;
      q.weights = mix.weights;
      q.bias = mix.bias;
      q.outputs = size;
      q.start = horizontal_at(0, l, pixel) + begin;
      q.ld_start = strides.horizontal;
      q.out = horizontal_at(0, l + 1, pixel) + begin;
      q.ld_out = strides.horizontal;
      q.last_row = count;
      compute(q);
    }
    Product p;
    p.in = horizontal_at(0, c.layers, pixel);
    p.length = end;
    p.lda = strides.horizontal;
    p.weights = net.head[g].weights;
    p.bias = net.head[g].bias;
    p.outputs = units.size(g);
    p.out = s.hidden + units.begin_of(g);
    p.ld_out = c.units;
    p.last_row = count;
    p.relu = true;
    compute(p);
    if (count == 1) list_alive(g);
  }

  void first_layer_left(int64_t x) {
    Product p;
    p.in = values_at(0, c.first_reach + y, x);
    p.length = c.first_reach * c.channels;
    p.lda = strides.values;
    p.weights = net.first_left.weights;
    p.bias = net.first_left.bias;
    p.outputs = c.features;
    p.out = horizontal_at(0, 0, c.reach + x);
    p.ld_out = strides.horizontal;
    p.last_row = count;
    compute(p);
  }

  void list_alive(int64_t g) {
    int64_t alive = alive_before(g);
    for (int64_t unit = units.begin_of(g); unit < units.end_of(g); ++unit) {
      s.alive[alive] = static_cast<int32_t>(unit);
      alive += s.hidden[unit] > 0;
    }
    s.alive_end[g] = alive;
  }

  int64_t alive_before(int64_t g) const { return g ? s.alive_end[g - 1] : 0; }

  Product logits_product(int64_t x, int64_t g) const {
    Product p;
    p.inputs = units.end_of(g);
    p.lda = c.units;
    p.outputs = c.levels;
    p.out = logits_at(x, g);
    p.ld_out = s.logits_stride;
    p.last_row = count;
    return p;
  }

  // Bias, conditioning, and what the hidden units of earlier colours give: [count][K].
  void logits_of_earlier_colours(int64_t x, int64_t g) {
    Product p = logits_product(x, g);
    p.weights = net.output[g].weights;
    p.bias = net.output[g].bias;
    p.start = conditioning_at(0, x, g);
    p.ld_start = j.width * c.channels * c.levels;
    const Share panels(p.panels(), member - 1, team.size() - 1);
    add_units(p, 0, g, panels);
  }

  // The rest of the logits: what the units of this colour give, or all if the team is one.
  void logits_of_own_colour(int64_t x, int64_t g) {
    Product p = logits_product(x, g);
    const Share panels(p.panels(), member, team.size());
    if (team.size() == 1) {
      p.weights = net.output[g].weights;
      p.bias = net.output[g].bias;
      p.start = conditioning_at(0, x, g);
      p.ld_start = j.width * c.channels * c.levels;
      add_units(p, 0, g + 1, panels);
    } else {
      p.weights = net.output[g].weights;
      p.start = p.out;
      p.ld_start = p.ld_out;
      add_units(p, g, g + 1, panels);
    }
  }

  // Adds the hidden units of the groups `from` … `to − 1`.
  void add_units(Product& p, int64_t from, int64_t to, const Share& panels) {
    p.first_panel = panels.first;
    p.last_panel = panels.last;
    if (count == 1) {
      const int64_t first = alive_before(from);
      p.in = s.hidden;
      compute_sparse(p, s.alive + first, alive_before(to) - first);
    } else {
      const int64_t first = units.begin_of(from);
      p.in = s.hidden + first;
      p.length = units.begin_of(to) - first;
      p.weights += first * kPanel;
      compute(p);
    }
  }

  void choose(int64_t n, int64_t x, int64_t g) {
    const int64_t place = (image + n) * strides.picture + (g * j.height + y) * j.width + x;
    if (!(j.mask && j.mask[place])) {
      const float u = j.noise[(((image + n) * j.height + y) * j.width + x) * c.channels + g];
      const int64_t level =
          draw(logits_at(x, g) + n * s.logits_stride, c.levels, u, j.temperature[image + n]);
      j.picture[place] = static_cast<uint8_t>(level);
    }
    values_at(n, c.first_reach + y, c.first_reach + x)[g] =
        static_cast<float>(j.picture[place]) / static_cast<float>(c.levels - 1) - 0.5f;
  }

  const Config& c;
  const Network& net;
  const Job& j;
  const Scratch& s;
  Team& team;
  const int64_t member, y;
  const Strides strides;
  const Groups features, units;
  int64_t image = 0, count = 0;
};

}  // namespace

namespace prsr {

void PRSR_DRAW_ROW(const Config& config, const Network& network, const Job& job,
                   const Scratch& scratch, Team& team, int64_t member, int64_t y, int64_t first,
                   int64_t count) {
  RowOfPictures row(config, network, job, scratch, team, member, y);
  // As many pictures at a time as the scratch memory holds, dealt out evenly.
  for (int64_t parts = (count + scratch.images - 1) / scratch.images; parts > 0; --parts) {
    const int64_t n = (count + parts - 1) / parts;
    row.draw_images(first, n);
    first += n;
    count -= n;
  }
}

}  // namespace prsr
