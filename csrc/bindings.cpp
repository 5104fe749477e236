// What Python sees: addresses and sizes in, rows of pictures out. Python has checked everything
// (prsr/engines/native.py); nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "dispatch.h"
#include "machine.h"

namespace py = pybind11;

namespace {

template <typename T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const auto& set : prsr::instruction_sets()) result.push_back(set.name);
  return result;
}

const prsr::Kernel& kernel(const std::string& instruction_set) {
  for (const auto& set : prsr::instruction_sets()) {
    if (set.name == instruction_set) return set.kernel;
  }
  throw std::invalid_argument("no instruction set " + instruction_set + " here");
}

// Whether Python has no signal to handle, such as Ctrl-C; if it has, its exception is set.
bool undisturbed() {
  const py::gil_scoped_acquire acquired;
  return PyErr_CheckSignals() == 0;
}

void draw_rows(const std::string& instruction_set, const std::array<int64_t, 8>& config,
               const std::array<int64_t, 4>& sizes, const std::array<uint64_t, 13>& addresses,
               int64_t y, int64_t end, int64_t threads) {
  const auto& [channels, levels, features, layers, reach, first_reach, units, half] = config;
  const prsr::Config c{channels, levels, features, layers, reach, first_reach, units, half != 0};
  const auto& a = addresses;
  const prsr::Network network(c, pointer<const float>(a[0]), pointer<const int64_t>(a[1]));
  const prsr::Job job{sizes[0],
                      sizes[1],
                      sizes[2],
                      sizes[3],
                      pointer<float>(a[2]),
                      pointer<float>(a[3]),
                      pointer<float>(a[4]),
                      pointer<float>(a[5]),
                      pointer<float>(a[6]),
                      pointer<const float>(a[7]),
                      pointer<const float>(a[8]),
                      pointer<const float>(a[9]),
                      pointer<const uint8_t>(a[10]),
                      pointer<uint8_t>(a[11]),
                      pointer<double>(a[12])};
  const prsr::DrawRow chosen = kernel(instruction_set).draw_row;
  bool done;
  {
    const py::gil_scoped_release released;
    done = prsr::draw_rows(chosen, c, network, job, y, end, threads, undisturbed);
  }
  if (!done) throw py::error_already_set();
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() =
      "The C++ engine's kernels for prsr.engines.native, and what benchmarks and tests ask.";
  module.def("instruction_sets", &names, "Those of this build and machine, the best one last.");
  module.def(
      "strips",
      [](const std::string& set) {
        const prsr::Kernel& chosen = kernel(set);
        return std::array<int64_t, 2>{chosen.row_strip, chosen.pixel_strip};
      },
      "How many outputs its strips of weights have, in the vertical stack and for a pixel.");
  module.def("draw_rows", &draw_rows, py::arg("instruction_set"), py::arg("config"),
             py::arg("sizes"), py::arg("addresses"), py::arg("y"), py::arg("end"),
             py::arg("threads"),
             "Draw rows y … end − 1 of every picture, in place; signals are heard after each.");
  module.def(
      "exponentials",
      [](const std::string& set, uint64_t x, uint64_t out, int64_t count) {
        prsr::exponentials(set, pointer<const float>(x), pointer<float>(out), count);
      },
      "For tests: e to the x of `count` floats at an address.");
  module.def(
      "gates",
      [](const std::string& set, uint64_t a, uint64_t b, uint64_t out, int64_t count) {
        prsr::gates(set, pointer<const float>(a), pointer<const float>(b), pointer<float>(out),
                    count);
      },
      "For tests: tanh(a)·σ(b) of `count` floats at two addresses.");
  const py::call_guard<py::gil_scoped_release> released;
  module.def("fma_peak", &prsr::fma_peak, py::arg("instruction_set"), py::arg("threads"), released,
             "Operations a second of fused multiply-adds on registers, two each.");
  module.def("read_bandwidth", &prsr::read_bandwidth, py::arg("instruction_set"), py::arg("bytes"),
             py::arg("threads"), released,
             "Bytes a second, each thread reading its part of so many over and over.");
}
