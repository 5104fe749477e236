// What this build was made for, and the GPUs that it sees.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace prsr {

// Of the CUDA runtime that is linked in, as in "13.0".
std::string cuda_version();

// Those that there is machine code for, as in "sm_90"; of the last one, the newest, PTX too.
std::vector<std::string> architectures();

struct Device {
  std::string name;
  int major, minor;  // compute capability
  uint64_t memory;   // bytes
};

// Throws std::runtime_error with CUDA's words for it where there is none to be seen.
std::vector<Device> devices();

}  // namespace prsr
