// What Python sees of the CUDA build; nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "devices.h"

namespace py = pybind11;

namespace {

std::vector<std::tuple<std::string, std::pair<int, int>, uint64_t>> devices() {
  std::vector<std::tuple<std::string, std::pair<int, int>, uint64_t>> result;
  for (const auto& device : prsr::devices()) {
    result.emplace_back(device.name, std::pair(device.major, device.minor), device.memory);
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "The CUDA build; called by prsr.info alone.";
  module.def("version", &prsr::cuda_version, "Of the CUDA runtime that is linked in.");
  module.def("architectures", &prsr::architectures, "That there is code for, the newest last.");
  module.def("devices", &devices,
             "Name, compute capability and bytes of memory of each GPU; RuntimeError if none.");
}
