// What Python sees: addresses and sizes in, rows of images out. Python has checked everything
// (prsr/engines/native.py); nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <type_traits>

#include "dispatch.h"
#include "machine.h"

namespace py = pybind11;

namespace {

template <typename T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

// Where a network's weights lie, and where in them each matrix and bias begins.
struct Weights {
  const float* memory;
  const int64_t* offsets;
};

// The keyword arguments that fill a struct: every field by its name, and no other.
class Fields {
 public:
  explicit Fields(const py::kwargs& given) : given_(given) {}

  template <typename T>
  Fields& read(const char* name, T& field) {
    if (!given_.contains(name)) throw py::type_error(std::string("no field ") + name + " given");
    const py::handle value = given_[name];
    if constexpr (std::is_pointer_v<T>) {
      field = reinterpret_cast<T>(value.cast<uintptr_t>());
    } else {
      field = value.cast<T>();
    }
    ++read_;
    return *this;
  }

  void no_more() const {
    if (given_.size() != read_) throw py::type_error("unknown fields given");
  }

 private:
  const py::kwargs& given_;
  size_t read_ = 0;
};

prsr::Config config_of(const py::kwargs& given) {
  prsr::Config c;
  Fields(given)
      .read("channels", c.channels)
      .read("levels", c.levels)
      .read("features", c.features)
      .read("layers", c.layers)
      .read("reach", c.reach)
      .read("first_reach", c.first_reach)
      .read("units", c.units)
      .read("gate_inputs", c.gate_inputs)
      .read("half_head", c.half_head)
      .no_more();
  return c;
}

Weights weights_of(const py::kwargs& given) {
  Weights w;
  Fields(given).read("memory", w.memory).read("offsets", w.offsets).no_more();
  return w;
}

prsr::Job job_of(const py::kwargs& given) {
  prsr::Job j;
  Fields(given)
      .read("bundles", j.bundles)
      .read("bundle", j.bundle)
      .read("height", j.height)
      .read("width", j.width)
      .read("values", j.values)
      .read("vertical", j.vertical)
      .read("above", j.above)
      .read("ahead", j.ahead)
      .read("horizontal", j.horizontal)
      .read("conditioning", j.conditioning)
      .read("features", j.features)
      .read("noise", j.noise)
      .read("temperature", j.temperature)
      .read("mask", j.mask)
      .read("image", j.image)
      .read("seconds", j.seconds)
      .no_more();
  return j;
}

prsr::ConditioningConfig conditioning_config_of(const py::kwargs& given) {
  prsr::ConditioningConfig c;
  Fields(given)
      .read("channels", c.channels)
      .read("levels", c.levels)
      .read("features", c.features)
      .read("blocks", c.blocks)
      .read("doublings", c.doublings)
      .no_more();
  return c;
}

prsr::ConditioningJob conditioning_job_of(const py::kwargs& given) {
  prsr::ConditioningJob j;
  Fields(given)
      .read("images", j.images)
      .read("height", j.height)
      .read("width", j.width)
      .read("steps", j.steps)
      .read("low", j.low)
      .read("features", j.features)
      .read("logits", j.logits)
      .no_more();
  return j;
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const auto& set : prsr::instruction_sets()) result.push_back(set.name);
  return result;
}

const prsr::InstructionSet& find(const std::string& instruction_set) {
  for (const auto& set : prsr::instruction_sets()) {
    if (set.name == instruction_set) return set;
  }
  throw std::invalid_argument("no instruction set " + instruction_set + " here");
}

// Whether Python has no signal to handle, such as Ctrl-C; if it has, its exception is set.
bool undisturbed() {
  const py::gil_scoped_acquire acquired;
  return PyErr_CheckSignals() == 0;
}

void draw_rows(const std::string& instruction_set, const prsr::Config& config,
               const Weights& weights, const prsr::Job& job, int64_t y, int64_t end,
               int64_t threads) {
  const prsr::Network network(config, weights.memory, weights.offsets);
  const prsr::DrawRow chosen = find(instruction_set).kernel.draw_row;
  bool done;
  {
    const py::gil_scoped_release released;
    done = prsr::draw_rows(chosen, config, network, job, y, end, threads, undisturbed);
  }
  if (!done) throw py::error_already_set();
}

bool condition(const std::string& instruction_set, const prsr::ConditioningConfig& config,
               const Weights& weights, const prsr::ConditioningJob& job, int64_t threads) {
  const prsr::ConditioningNetwork network(config, weights.memory, weights.offsets);
  const prsr::Condition chosen = find(instruction_set).condition;
  const py::gil_scoped_release released;
  return prsr::condition_images(chosen, config, network, job, threads);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() =
      "The C++ engine's kernels for prsr.engines.native, and what benchmarks and tests ask.";
  module.def("instruction_sets", &names, "Those of this build and machine, the best one last.");
  module.def(
      "strips",
      [](const std::string& set) {
        const prsr::Kernel& chosen = find(set).kernel;
        return std::array<int64_t, 2>{chosen.row_strip, chosen.pixel_strip};
      },
      "How many outputs its strips of weights have, in the vertical stack and for a pixel.");
  py::class_<prsr::Config>(module, "Config", "The numbers of a prior.").def(py::init(&config_of));
  py::class_<Weights>(module, "Weights", "Addresses of a prior's weights and of their offsets.")
      .def(py::init(&weights_of));
  py::class_<prsr::Job>(module, "Job", "Sizes, and addresses of caches, inputs and outputs.")
      .def(py::init(&job_of));
  module.def("draw_rows", &draw_rows, py::arg("instruction_set"), py::arg("config"),
             py::arg("weights"), py::arg("job"), py::arg("y"), py::arg("end"), py::arg("threads"),
             "Draw rows y … end − 1 of every image, in place; signals are heard after each.");
  py::class_<prsr::ConditioningConfig>(module, "ConditioningConfig",
                                       "The numbers of a conditioning network.")
      .def(py::init(&conditioning_config_of));
  py::class_<prsr::ConditioningJob>(module, "ConditioningJob",
                                    "Sizes, and addresses of inputs and outputs.")
      .def(py::init(&conditioning_job_of));
  module.def(
      "condition", &condition, py::arg("instruction_set"), py::arg("config"), py::arg("weights"),
      py::arg("job"), py::arg("threads"),
      "Compute a conditioning network's features and logits; whether the logits are finite.");
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
