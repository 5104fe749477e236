// Converts errors of the CUDA runtime into exceptions that name the call.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace prsr {

inline void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // resets the error, which the next call would report otherwise
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

}  // namespace prsr
