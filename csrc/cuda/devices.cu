#include "cuda_error.h"
#include "devices.h"

namespace prsr {

std::string cuda_version() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::vector<std::string> architectures() {
  std::vector<std::string> result;
  for (const int architecture : {__CUDA_ARCH_LIST__}) {  // nvcc's list, such as 800, 900
    result.push_back("sm_" + std::to_string(architecture / 10));
  }
  return result;
}

std::vector<Device> devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  std::vector<Device> result;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    result.push_back(
        {properties.name, properties.major, properties.minor, properties.totalGlobalMem});
  }
  return result;
}

}  // namespace prsr
