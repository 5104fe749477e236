// Chooses the kernels for an instruction set, and divides the rows of a job among threads.
#pragma once

#include <functional>
#include <string>

#include "conditioning.h"
#include "operands.h"

namespace prsr {

// Throw std::invalid_argument if this machine cannot run `instruction_set`.
const Kernel& prior_kernel(const std::string& instruction_set);
Condition conditioning_kernel(const std::string& instruction_set);

// The most threads that share one image: more would mostly wait for each other.
constexpr int64_t kMostMembers = 4;

// Whether other processes have recently delayed threads that share an image.
bool cores_contended();

// Draws rows y … end − 1 of all images with up to `threads` threads, or with the calling thread
// alone if the thread pool is busy. The result is bit-identical either way. After each row, the
// calling thread calls `go_on`, which must not throw; once it returns false, no thread begins
// another row. Returns the last value of `go_on`. Throws std::bad_alloc if working memory cannot be
// allocated.
bool draw_rows(DrawRow kernel, const PriorConfig& config, const Network& network, const Job& job,
               int64_t y, int64_t end, int64_t threads, const std::function<bool()>& go_on);

}  // namespace prsr
