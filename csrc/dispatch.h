// The instruction sets that this build has, and rows drawn by several threads.
#pragma once

#include <string>
#include <vector>

#include "engine.h"

namespace prsr {

struct InstructionSet {
  std::string name;
  DrawRow draw_row;
};

// Those that this machine has too, the best one last.
const std::vector<InstructionSet>& instruction_sets();

// Draws row y of all images with up to `threads` threads, or one if the others serve another
// caller just now: the result is the same to a bit.
// Throws std::bad_alloc where working memory is lacking.
void draw_row(DrawRow kernel, const Config& config, const Network& network, const Job& job,
              int64_t y, int64_t threads);

}  // namespace prsr
