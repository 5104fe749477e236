// Converts errors of the CUDA runtime into exceptions that name the call.
#pragma once

#include <cuda_runtime.h>

#include <new>
#include <stdexcept>
#include <string>

namespace prsr {

// Python receives it as MemoryError, upon which the sampler halves its slice.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

inline void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // resets the error, which the next call would report otherwise
  const std::string what = std::string(call) + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) throw OutOfMemory(what);
  throw std::runtime_error(what);
}

}  // namespace prsr
