// The module prsr._native: Python passes addresses and sizes, and rows of images are drawn in
// place. Python has checked everything (prsr/engines/cpu.py). Nothing here depends on torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "dispatch.h"
#include "instruction_sets.h"

namespace py = pybind11;

namespace {

// Address of a network's weights, and offsets in them of each matrix and bias.
struct Weights {
  const float* memory;
  const int64_t* offsets;
};

// Fills a struct from keyword arguments, which must name each of its fields and nothing else.
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

prsr::PriorConfig config_of(const py::kwargs& given) {
  prsr::PriorConfig c;
  Fields(given)
      .read("channels", c.channels)
      .read("levels", c.levels)
      .read("features", c.features)
      .read("layers", c.layers)
      .read("reach", c.reach)
      .read("first_reach", c.first_reach)
      .read("units", c.units)
      .read("gate_inputs", c.gate_inputs)
      .read("bf16", c.bf16)
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
      .read("last_inputs", j.last.inputs)
      .read("last_features", j.last.features)
      .read("last_weights", j.last.layer.weights)
      .read("last_bias", j.last.layer.bias)
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
      .read("limit", j.limit)
      .read("low", j.low)
      .read("features", j.features)
      .read("logits", j.logits)
      .no_more();
  return j;
}

// Returns true unless Python has a pending signal, such as Ctrl-C, whose handler raised an
// exception.
bool no_signal_pending() {
  const py::gil_scoped_acquire acquired;
  return PyErr_CheckSignals() == 0;
}

void draw_rows(const std::string& instruction_set, const prsr::PriorConfig& config,
               const Weights& weights, const prsr::Job& job, int64_t y, int64_t end,
               int64_t threads) {
  const prsr::Network network(config, weights.memory, weights.offsets);
  const prsr::DrawRow kernel = prsr::prior_kernel(instruction_set).draw_row;
  bool done;
  {
    const py::gil_scoped_release released;
    done = prsr::draw_rows(kernel, config, network, job, y, end, threads, no_signal_pending);
  }
  if (!done) throw py::error_already_set();
}

bool condition(const std::string& instruction_set, const prsr::ConditioningConfig& config,
               const Weights& weights, const prsr::ConditioningJob& job, int64_t threads) {
  const prsr::ConditioningNetwork network(config, weights.memory, weights.offsets);
  const prsr::Condition kernel = prsr::conditioning_kernel(instruction_set);
  const py::gil_scoped_release released;
  return prsr::condition_images(kernel, config, network, job, threads);
}

// Whether each of some pairs of arrays, given by their addresses, holds the same bytes.
bool same_memory(const std::vector<uintptr_t>& first, const std::vector<uintptr_t>& second,
                 const std::vector<size_t>& sizes) {
  if (first.size() != sizes.size() || second.size() != sizes.size()) {
    throw std::invalid_argument("each array must have an address in both lists and a size");
  }
  const py::gil_scoped_release released;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (std::memcmp(reinterpret_cast<const void*>(first[i]),
                    reinterpret_cast<const void*>(second[i]), sizes[i]) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "The kernels of the engine cpu.";
  module.def(
      "instruction_sets", &prsr::instruction_sets,
      "Names of those that this build has and this machine can run; the last is the default.");
  module.def(
      "strips",
      [](const std::string& set) {
        const prsr::Kernel& kernel = prsr::prior_kernel(set);
        return std::array<int64_t, 2>{kernel.row_strip, kernel.pixel_strip};
      },
      "The most outputs per strip of weights, in the vertical stack and at a pixel.");
  module.def(
      "tiles", [](const std::string& set) { return prsr::prior_kernel(set).tiles; },
      "Whether tiles compute the large products in bf16.");
  py::class_<prsr::PriorConfig>(module, "PriorConfig", "Sizes of a prior.")
      .def(py::init(&config_of));
  py::class_<Weights>(module, "Weights", "Addresses of a network's weights and of their offsets.")
      .def(py::init(&weights_of));
  py::class_<prsr::Job>(module, "Job", "Sizes, and addresses of caches, inputs and outputs.")
      .def(py::init(&job_of));
  module.def("draw_rows", &draw_rows, py::arg("instruction_set"), py::arg("config"),
             py::arg("weights"), py::arg("job"), py::arg("y"), py::arg("end"), py::arg("threads"),
             "Draw rows y … end − 1 of every image in place; signals are handled after each row.");
  py::class_<prsr::ConditioningConfig>(module, "ConditioningConfig",
                                       "Sizes of a conditioning network.")
      .def(py::init(&conditioning_config_of));
  py::class_<prsr::ConditioningJob>(module, "ConditioningJob",
                                    "Sizes, and addresses of inputs and outputs.")
      .def(py::init(&conditioning_job_of));
  module.def("condition", &condition, py::arg("instruction_set"), py::arg("config"),
             py::arg("weights"), py::arg("job"), py::arg("threads"),
             "Compute the features and logits of a conditioning network; return whether all "
             "features are within the limit.");
  module.def("same_memory", &same_memory, py::arg("first"), py::arg("second"), py::arg("sizes"),
             "Whether arrays, given by lists of addresses and of sizes in bytes, are equal.");
}
