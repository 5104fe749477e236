// Errors of the CUDA runtime as exceptions that name the call.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace prsr {

inline void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would be blamed for it
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

}  // namespace prsr
