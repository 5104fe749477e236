// The instruction sets that the kernels are compiled for.
#pragma once

#include <string>
#include <vector>

namespace prsr {

// Names of those that this build has and this machine can run. The last is the default: the fastest
// of those that have been measured.
const std::vector<std::string>& instruction_sets();

// Throws std::invalid_argument unless `name` is one of instruction_sets().
void check_instruction_set(const std::string& name);

}  // namespace prsr
