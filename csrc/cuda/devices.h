// Properties of this build, and the available GPUs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace prsr {

// Version of the CUDA runtime that is linked in, such as "13.0".
std::string cuda_version();

// Architectures with machine code, such as "sm_90"; the last and newest one also has PTX.
std::vector<std::string> architectures();

struct Device {
  std::string name;
  int major, minor;  // compute capability
  uint64_t memory;   // bytes
};

// Throws std::runtime_error with CUDA's message if there is no usable GPU.
std::vector<Device> devices();

}  // namespace prsr
