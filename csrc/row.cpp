// One row of pictures: the vertical stack at once, then pixel by pixel the horizontal stack, the
// head and the draw. Compiled once per instruction set; PRSR_DRAW_ROW is the name it gets.
//
// Every multiply-add of the network is done once a picture, all of them by product.h. The network
// is that of van den Oord et al. (arXiv 1606.05328), the caches those of Ramachandran et al.
// (arXiv 1704.06001).
#include <chrono>

#include "draw.h"
#include "engine.h"
#include "product.h"

namespace {

using prsr::Block;
using prsr::Claims;
using prsr::Config;
using prsr::Job;
using prsr::Layer;
using prsr::Network;
using prsr::Scratch;
using prsr::Team;

// Columns of a task that is done while waiting: short, for somebody waits for who does it.
constexpr int64_t kColumnsAhead = 4;

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
  int64_t value_row, values, vertical_row, vertical, ahead, picture;
  Strides(const Config& c, const Job& j)
      : value_row((j.width + 2 * c.first_reach) * c.channels),
        values((j.height + c.first_reach) * value_row),
        vertical_row((j.width + 2 * c.reach) * c.features),
        vertical(c.layers * (c.reach + 1) * vertical_row),
        ahead(c.layers * j.width * 2 * c.features + 1),
        picture(c.channels * j.height * j.width) {}
};

// Adds the time of its life to a part of the job's, if the job asks for it.
class Stopwatch {
 public:
  using Clock = std::chrono::steady_clock;
  Stopwatch(double* seconds, prsr::Part part) : seconds_(seconds ? seconds + part : nullptr) {
    if (seconds_) start_ = Clock::now();
  }
  ~Stopwatch() {
    if (seconds_) *seconds_ += std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  double* const seconds_;
  Clock::time_point start_;
};

// One member's part in one row of some pictures.
//
// The order in which sub-pixels are drawn makes one long chain. A thread alone goes through it. In
// a team, member 0 leads: it follows the chain from the first layer to the hidden units. What is
// left of a sub-pixel, the product of the hidden units with the head's large matrix, is for whoever
// has time; while the others, its helpers, wait for hidden units, they add up what those of earlier
// colours give, and what the rows so far give to the vertical stack of the next row. Little passes
// from core to core, for that is what takes time: on some machines, half a microsecond there and
// back. Every sum has its terms in the same order as for a thread alone, so the bits are the same.
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
        seconds(member == 0 ? job.seconds : nullptr),
        strides(config, job),
        features{config.features, config.channels},
        units{config.units, config.channels} {}

  // Draws the images `first` … `first + n − 1`.
  void draw_images(int64_t first, int64_t n) {
    image = first;
    count = n;
    {
      const Stopwatch watch(seconds, prsr::kVertical);
      vertical_stack();
    }
    if (team.size() == 1) {
      alone(0);
    } else if (member == 0) {
      lead();
    } else {
      help();
    }
    team.meet();
  }

 private:
  // From pixel x on.
  void alone(int64_t x) {
    for (; x < j.width; ++x) {
      {
        const Stopwatch watch(seconds, prsr::kHorizontal);
        add_taps(x);
      }
      for (int64_t g = 0; g < c.channels; ++g) {
        {
          const Stopwatch watch(seconds, prsr::kHorizontal);
          chain(x, g);
        }
        {
          const Stopwatch watch(seconds, prsr::kHead);
          hidden_units(x, g);
          add_units(x, g, 0, g + 1, 0, -1);
        }
        choose(x, g);
      }
    }
  }

  void lead() {
    for (int64_t x = 0; x < j.width; ++x) {
      if (team.contended()) {
        team.dismiss();
        team.count(0, Team::kDone);
        team.wait_for_helpers(Team::kLeft, 1);
        return alone(x);
      }
      add_taps(x);
      for (int64_t g = 0; g < c.channels; ++g) {
        const int64_t now = x * c.channels + g;
        chain(x, g);
        hidden_units(x, g);
        s.claims[(now + 1) % 2].reset();  // they were done with before the last draw
        team.count(0, Team::kDone);
        share_logits(x, g, now);
        team.wait_for_helpers(Team::kDone, now + 1);
        choose(x, g);
      }
    }
    while (work_ahead()) {
    }
    for (int64_t n = 0; n < count; ++n) row_ahead(n) = static_cast<float>(y + 2);
  }

  void help() {
    for (int64_t x = 0; x < j.width; ++x) {
      for (int64_t g = 0; g < c.channels; ++g) {
        const int64_t now = x * c.channels + g;
        Claims& claims = s.claims[now % 2];
        const auto ready = [&] { return team.has(0, Team::kDone, now + 1); };
        for (int64_t b = 0; b < claims.blocks() && g > 0 && !ready(); ++b) {
          if (!claims.take_early(b)) continue;
          add_units(x, g, 0, g, b, b + 1);
          claims.early_done(b);
        }
        while (!ready() && work_ahead()) {
        }
        team.wait(0, Team::kDone, now + 1);
        if (team.dismissed()) return team.count(member, Team::kLeft);
        share_logits(x, g, now);
        team.count(member, Team::kDone);
      }
    }
    while (work_ahead()) {
    }
  }

  // The logits that are not done, block by block: whoever comes first.
  void share_logits(int64_t x, int64_t g, int64_t now) {
    Claims& claims = s.claims[now % 2];
    const int64_t blocks = claims.blocks();
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t b = member == 0 ? blocks - 1 - i : i;
      const Claims::State state = claims.take(b);
      if (state != Claims::kTaken) {
        add_units(x, g, state == Claims::kFree ? 0 : g, g + 1, b, b + 1);
      }
    }
  }

  // Some columns of one layer of the next row's vertical stack, as far as the rows so far go: what
  // nobody else has taken. Returns whether there was any.
  bool work_ahead() {
    const int64_t parts = (j.width + kColumnsAhead - 1) / kColumnsAhead;
    if (c.reach == 0 || y + 1 == j.height) return false;
    const int64_t task = team.next_task();
    if (task >= count * c.layers * parts) return false;
    const int64_t n = task / (c.layers * parts), l = task / parts % c.layers;
    Product p = vertical_product(n, l, y + 1);
    p.segments = c.reach;  // the last row is not there yet
    p.out = ahead_at(n, l);
    p.first_row = task % parts * kColumnsAhead;
    p.last_row = p.first_row + kColumnsAhead < j.width ? p.first_row + kColumnsAhead : j.width;
    compute(p);
    return true;
  }

  // Features times the weights of a group, which reads all up to its own.
  Product of_group(const void* weights, int64_t g) const {
    Product p;
    p.weights = weights;
    p.length = features.end_of(g);
    p.last_row = count;
    return p;
  }

  float* values_at(int64_t n, int64_t row, int64_t column) const {
    return j.values + (image + n) * strides.values + row * strides.value_row + column * c.channels;
  }
  float* vertical_at(int64_t n, int64_t layer, int64_t row) const {
    const int64_t slot = row % (c.reach + 1);
    return j.vertical + (image + n) * strides.vertical +
           (layer * (c.reach + 1) + slot) * strides.vertical_row;
  }
  float* above_at(int64_t n, int64_t layer, int64_t x) const {
    return j.above + ((layer * j.width + x) * j.images + image + n) * 2 * c.features;
  }
  float* horizontal_at(int64_t n, int64_t layer, int64_t column) const {
    return j.horizontal +
           ((layer * (c.reach + j.width) + column) * j.images + image + n) * c.features;
  }
  const float* conditioning_at(int64_t n, int64_t x, int64_t g) const {
    return j.conditioning +
           ((((image + n) * j.height + y) * j.width + x) * c.channels + g) * c.levels;
  }
  float* ahead_at(int64_t n, int64_t layer) const {
    return j.ahead + (image + n) * strides.ahead + layer * j.width * 2 * c.features;
  }
  // The row that the sums ahead are for, counted from 1, so that 0 stands for none.
  float& row_ahead(int64_t n) const { return j.ahead[(image + n + 1) * strides.ahead - 1]; }
  float* given_at(int64_t layer) const { return s.given + layer * s.images * 2 * c.features; }
  float* gated_at(int64_t layer) const { return s.gated + layer * s.images * c.features; }
  float* logits_at(int64_t x, int64_t g) const {
    return s.logits + (x * c.channels + g) % 2 * s.logits_size;
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
        Product p = vertical_product(n, l, y);
        if (row_ahead(n) == static_cast<float>(y + 1)) {
          // All rows but the last have been added up while the row before was drawn.
          p.in = vertical_at(n, l, y);
          p.segments = 1;
          p.first_segment = 0;
          p.first_input = c.reach * p.length;
          p.bias = nullptr;
          p.start = ahead_at(n, l);
          p.ld_start = c2;
        }
        p.out = s.preactivations;
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
        q.ld_out = j.images * c2;
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

  // Rows y − p … y lie in a ring: first those from its seam on, then those before it.
  Product vertical_product(int64_t n, int64_t l, int64_t row) const {
    Product p;
    p.in = vertical_at(n, l, 0);
    p.segments = p.ring = c.reach + 1;
    p.segment_stride = strides.vertical_row;
    p.first_segment = (row + 1) % p.ring;
    p.length = (2 * c.reach + 1) * c.features;
    p.lda = c.features;
    p.weights = net.blocks[l].vertical.weights;
    p.inputs = p.segments * p.length;
    p.bias = net.blocks[l].vertical.bias;
    p.outputs = p.ld_out = 2 * c.features;
    return p;
  }

  // What the pixels to the left give to pixel x in every block.
  void add_taps(int64_t x) {
    const int64_t c2 = 2 * c.features;
    for (int64_t l = 0; l < c.layers; ++l) {
      Product p;
      p.in = horizontal_at(0, l, x);
      p.segments = c.reach;
      p.segment_stride = j.images * c.features;
      p.length = p.lda = c.features;
      p.weights = net.blocks[l].taps;
      p.outputs = c2;
      p.start = above_at(0, l, x);
      p.ld_start = c2;
      p.out = given_at(l);
      p.ld_out = c2;
      p.last_row = count;
      compute(p);
    }
  }

  // What must run in sequence for colour g of pixel x: the first layer and the blocks.
  void chain(int64_t x, int64_t g) {
    const int64_t c2 = 2 * c.features, pixel = c.reach + x;
    const int64_t begin = features.begin_of(g), size = features.size(g);
    g == 0 ? first_layer_left(x) : first_layer_own(x, g);
    for (int64_t l = 0; l < c.layers; ++l) {
      const Block& block = net.blocks[l];
      Product p = of_group(block.centre[g], g);
      p.in = horizontal_at(0, l, pixel);
      p.lda = c.features;
      p.outputs = 2 * size;
      p.start = given_at(l) + 2 * begin;
      p.ld_start = c2;
      p.out = s.chain;
      p.ld_out = s.chain_stride;
      compute(p);
      for (int64_t n = 0; n < count; ++n) {
        gate_features(s.chain + n * s.chain_stride, size, gated_at(l) + n * c.features + begin);
      }
      Product q = of_group(block.mix[g].weights, g);
      q.in = gated_at(l);
      q.lda = c.features;
      q.outputs = size;
      q.bias = block.mix[g].bias;
      q.then = horizontal_at(0, l, pixel) + begin;
      q.ld_then = c.features;
      q.out = horizontal_at(0, l + 1, pixel) + begin;
      q.ld_out = c.features;
      compute(q);
    }
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
    p.ld_out = c.features;
    p.last_row = count;
    compute(p);
  }

  // What the earlier colours of the same pixel add to it.
  void first_layer_own(int64_t x, int64_t g) {
    Product p;
    p.in = values_at(0, c.first_reach + y, c.first_reach + x);
    p.length = g;
    p.lda = strides.values;
    p.weights = net.first_own[g];
    p.outputs = features.size(g);
    p.start = p.out = horizontal_at(0, 0, c.reach + x) + features.begin_of(g);
    p.ld_start = p.ld_out = c.features;
    p.last_row = count;
    compute(p);
  }

  void hidden_units(int64_t x, int64_t g) {
    Product p = of_group(net.head[g].weights, g);
    p.half = c.half_head;
    p.in = horizontal_at(0, c.layers, c.reach + x);
    p.lda = c.features;
    p.outputs = units.size(g);
    p.bias = net.head[g].bias;
    p.out = s.hidden + units.begin_of(g);
    p.ld_out = c.units;
    p.relu = true;
    compute(p);
    if (count == 1) list_alive(g);
  }

  // One picture's units are half zeros, whose weights need not be read.
  void list_alive(int64_t g) {
    int64_t alive = alive_before(g);
    for (int64_t unit = units.begin_of(g); unit < units.end_of(g); ++unit) {
      s.alive[alive] = static_cast<int32_t>(unit);
      alive += s.hidden[unit] > 0;
    }
    s.alive_end[g] = alive;
  }

  int64_t alive_before(int64_t g) const { return g ? s.alive_end[g - 1] : 0; }

  // Adds what the hidden units of the colours `from` … `to − 1` give to some blocks of the logits
  // of colour g; from = 0 begins them with bias and conditioning.
  void add_units(int64_t x, int64_t g, int64_t from, int64_t to, int64_t block,
                 int64_t last_block) {
    Product p;
    p.weights = net.output[g].weights;
    p.half = c.half_head;
    p.inputs = units.end_of(g);
    p.outputs = c.levels;
    p.out = logits_at(x, g);
    p.ld_out = s.logits_stride;
    if (from == 0) {
      p.bias = net.output[g].bias;
      p.start = conditioning_at(0, x, g);
      p.ld_start = j.height * j.width * c.channels * c.levels;
    } else {
      p.start = p.out;
      p.ld_start = p.ld_out;
    }
    p.last_row = count;
    p.first_block = block;
    p.last_block = last_block;
    if (count == 1) {
      const int64_t first = alive_before(from);
      p.in = s.hidden;
      compute(p, Sparse{s.alive + first, alive_before(to) - first});
    } else {
      p.first_input = units.begin_of(from);
      p.in = s.hidden + p.first_input;
      p.lda = c.units;
      p.length = units.begin_of(to) - p.first_input;
      compute(p);
    }
  }

  // Draws colour g of pixel x of every picture, or takes it as given.
  void choose(int64_t x, int64_t g) {
    const Stopwatch watch(seconds, prsr::kDraw);
    for (int64_t n = 0; n < count; ++n) {
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
  }

  const Config& c;
  const Network& net;
  const Job& j;
  const Scratch& s;
  Team& team;
  const int64_t member, y;
  double* const seconds;
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
