// The module prsr._bench, for development only: what a machine can do, for benchmarks, and single
// functions of the kernels, for tests.
#include <pybind11/pybind11.h>

#include "measure.h"

namespace py = pybind11;

namespace {

template <typename T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

}  // namespace

PYBIND11_MODULE(_bench, module) {
  module.doc() = "Machine limits and single kernel functions of the engine cpu; not in wheels.";
  const py::call_guard<py::gil_scoped_release> released;
  module.def("fma_peak", &prsr::fma_peak, py::arg("instruction_set"), py::arg("threads"), released,
             "Fused multiply-adds on registers: floating-point operations per second, two each.");
  module.def("read_bandwidth", &prsr::read_bandwidth, py::arg("instruction_set"), py::arg("bytes"),
             py::arg("threads"), released,
             "Bytes read per second when each thread reads its share of a working set repeatedly.");
  module.def("round_trip", &prsr::round_trip, released,
             "Seconds that a message takes from a thread to another and back.");
  module.def(
      "exponentials",
      [](const std::string& set, uint64_t x, uint64_t out, int64_t count) {
        prsr::exponentials(set, pointer<const float>(x), pointer<float>(out), count);
      },
      py::arg("instruction_set"), py::arg("x"), py::arg("out"), py::arg("count"),
      "exp(x) of `count` floats, as the kernels compute it; arrays are given by address.");
  module.def(
      "gates",
      [](const std::string& set, uint64_t a, uint64_t b, uint64_t out, int64_t count) {
        prsr::gates(set, pointer<const float>(a), pointer<const float>(b), pointer<float>(out),
                    count);
      },
      py::arg("instruction_set"), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("count"),
      "tanh(a)·sigmoid(b) of `count` floats, as the kernels compute it; arrays by address.");
  module.def(
      "multiply_tiles",
      [](const std::string& set, uint64_t a, uint64_t b, uint64_t c, int64_t rows, int64_t pairs,
         int64_t columns) {
        prsr::multiply_tiles(set, pointer<const uint32_t>(a), pointer<const uint32_t>(b),
                             pointer<float>(c), rows, pairs, columns);
      },
      py::arg("instruction_set"), py::arg("a"), py::arg("b"), py::arg("c"), py::arg("rows"),
      py::arg("pairs"), py::arg("columns"),
      "Adds to c [rows][columns] the product of a [rows][pairs] and b [pairs][columns], all of at "
      "most 16, as one product of tiles; arrays by address.");
  module.def(
      "round_to_bf16",
      [](const std::string& set, uint64_t x, uint64_t out, int64_t size, int64_t bundle) {
        prsr::round_to_bf16(set, pointer<const float>(x), pointer<uint16_t>(out), size, bundle);
      },
      py::arg("instruction_set"), py::arg("x"), py::arg("out"), py::arg("size"), py::arg("bundle"),
      "Rounds the features of a bundle to pairs of bfloat16, as the kernels do; arrays by "
      "address.");
}
