// The instruction sets that this build has, and rows drawn by several threads.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conditioning.h"
#include "engine.h"

namespace prsr {

struct InstructionSet {
  std::string name;
  Kernel kernel;
  Condition condition;
};

// Those that this machine has too, the best one last.
const std::vector<InstructionSet>& instruction_sets();

// Threads that share an image: no more than this, for they wait for each other all the time.
constexpr int64_t kMostMembers = 4;

// Whether other work has lately kept threads that share an image waiting for each other.
bool cores_contended();

// Draws rows y … end − 1 of all images with up to `threads` threads, or one if the others serve
// another caller just now: the result is the same to a bit. After each row of its own, the calling
// thread asks `go_on`, which must not throw; where that is false, no thread begins another row.
// Returns the last answer.
// Throws std::bad_alloc where working memory is lacking.
bool draw_rows(DrawRow kernel, const Config& config, const Network& network, const Job& job,
               int64_t y, int64_t end, int64_t threads, const std::function<bool()>& go_on);

}  // namespace prsr
