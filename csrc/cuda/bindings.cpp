// The module prsr._cuda. Nothing here depends on torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "devices.h"
#include "launch.h"
#include "measure.h"

namespace py = pybind11;

namespace {

std::vector<std::tuple<std::string, std::pair<int, int>, uint64_t>> devices() {
  std::vector<std::tuple<std::string, std::pair<int, int>, uint64_t>> result;
  for (const auto& device : prsr::devices()) {
    result.emplace_back(device.name, std::pair(device.major, device.minor), device.memory);
  }
  return result;
}

// Binds a struct as a class whose constructor takes every field by name; addresses are integers.
template <typename Struct>
class Fields {
 public:
  Fields(py::module_& module, const char* name, const char* doc) : class_(module, name, doc) {}

  template <typename Value>
  Fields& field(const char* name, Value Struct::* member) {
    names_.append(name);
    if constexpr (std::is_pointer_v<Value>) {
      const auto get = [member](const Struct& s) { return reinterpret_cast<uintptr_t>(s.*member); };
      const auto set = [member](Struct& s, uintptr_t address) {
        s.*member = reinterpret_cast<Value>(address);
      };
      class_.def_property(name, get, set);
    } else {
      class_.def_readwrite(name, member);
    }
    return *this;
  }

  void finish() {
    class_.attr("fields") = names_;
    class_.def(py::init([names = py::tuple(names_)](const py::kwargs& values) {
      if (values.size() != names.size()) {
        throw py::type_error("expected exactly the fields " + std::string(py::str(names)));
      }
      Struct s{};
      py::object wrapped = py::cast(&s, py::return_value_policy::reference);
      for (const auto name : names) wrapped.attr(name) = values[name];  // KeyError if missing
      return s;
    }));
  }

 private:
  py::class_<Struct> class_;
  py::list names_;
};

prsr::Format format(const std::string& name) {
  if (name == "tf32") return prsr::Format::kTf32;
  if (name == "split") return prsr::Format::kSplit;
  if (name == "fp16") return prsr::Format::kFp16;
  if (name == "bf16") return prsr::Format::kBf16;
  throw std::invalid_argument("format must be tf32, split, fp16 or bf16, got " + name);
}

void bind_rows(py::module_& module) {
  using prsr::HorizontalRow;
  using prsr::VerticalRow;
  Fields<VerticalRow>(module, "VerticalRow", "csrc/cuda/arguments.h")
      .field("images", &VerticalRow::images)
      .field("height", &VerticalRow::height)
      .field("width", &VerticalRow::width)
      .field("y", &VerticalRow::y)
      .field("channels", &VerticalRow::channels)
      .field("layers", &VerticalRow::layers)
      .field("reach", &VerticalRow::reach)
      .field("first_reach", &VerticalRow::first_reach)
      .field("feature_steps", &VerticalRow::feature_steps)
      .field("condition_steps", &VerticalRow::condition_steps)
      .field("group_steps", &VerticalRow::group_steps)
      .field("images_per_block", &VerticalRow::images_per_block)
      .field("first", &VerticalRow::first)
      .field("first_bias", &VerticalRow::first_bias)
      .field("gates", &VerticalRow::gates)
      .field("gate_bias", &VerticalRow::gate_bias)
      .field("link", &VerticalRow::link)
      .field("link_bias", &VerticalRow::link_bias)
      .field("values", &VerticalRow::values)
      .field("cache", &VerticalRow::cache)
      .field("condition", &VerticalRow::condition)
      .field("preactivations", &VerticalRow::preactivations)
      .field("above", &VerticalRow::above)
      .finish();
  Fields<HorizontalRow>(module, "HorizontalRow", "csrc/cuda/arguments.h")
      .field("images", &HorizontalRow::images)
      .field("height", &HorizontalRow::height)
      .field("width", &HorizontalRow::width)
      .field("y", &HorizontalRow::y)
      .field("channels", &HorizontalRow::channels)
      .field("levels", &HorizontalRow::levels)
      .field("layers", &HorizontalRow::layers)
      .field("reach", &HorizontalRow::reach)
      .field("first_reach", &HorizontalRow::first_reach)
      .field("group_steps", &HorizontalRow::group_steps)
      .field("unit_steps", &HorizontalRow::unit_steps)
      .field("level_pairs", &HorizontalRow::level_pairs)
      .field("tiles", &HorizontalRow::tiles)
      .field("look_ahead", &HorizontalRow::look_ahead)
      .field("given_offset", &HorizontalRow::given_offset)
      .field("chain_offset", &HorizontalRow::chain_offset)
      .field("hidden_offset", &HorizontalRow::hidden_offset)
      .field("output_colour", &HorizontalRow::output_colour)
      .field("output_offset", &HorizontalRow::output_offset)
      .field("first", &HorizontalRow::first)
      .field("first_bias", &HorizontalRow::first_bias)
      .field("gates", &HorizontalRow::gates)
      .field("mix", &HorizontalRow::mix)
      .field("mix_bias", &HorizontalRow::mix_bias)
      .field("chain", &HorizontalRow::chain)
      .field("hidden", &HorizontalRow::hidden)
      .field("hidden_bias", &HorizontalRow::hidden_bias)
      .field("output", &HorizontalRow::output)
      .field("output_bias", &HorizontalRow::output_bias)
      .field("values", &HorizontalRow::values)
      .field("above", &HorizontalRow::above)
      .field("kept", &HorizontalRow::kept)
      .field("gated", &HorizontalRow::gated)
      .field("given", &HorizontalRow::given)
      .field("residual", &HorizontalRow::residual)
      .field("units", &HorizontalRow::units)
      .field("conditioning", &HorizontalRow::conditioning)
      .field("noise", &HorizontalRow::noise)
      .field("temperature", &HorizontalRow::temperature)
      .field("known", &HorizontalRow::known)
      .field("image", &HorizontalRow::image)
      .field("clocks", &HorizontalRow::clocks)
      .finish();
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "The CUDA kernels of the engine cuda, and properties of the build.";
  module.def("version", &prsr::cuda_version, "Version of the CUDA runtime that is linked in.");
  module.def("architectures", &prsr::architectures,
             "Architectures that the build has code for, the newest last.");
  module.def("devices", &devices,
             "Name, compute capability and bytes of memory of each GPU; RuntimeError if none.");
  bind_rows(module);
  module.attr("phases") = py::make_tuple("chain", "sums", "head", "late", "logits", "draw");
  module.def("use", &prsr::use, py::arg("device"), "Select this thread's current device.");
  module.def("shared_limit", &prsr::shared_limit,
             "The most bytes of shared memory per block on the current device.");
  module.def(
      "plan_shared_memory",
      [](const std::string& name, prsr::HorizontalRow& row, int cluster, int limit) {
        return prsr::plan_shared_memory(format(name), row, cluster, limit);
      },
      py::arg("format"), py::arg("row"), py::arg("cluster"), py::arg("limit"),
      "Choose the arrays in shared memory; bytes per block, above the limit if they do not fit.");
  module.def(
      "active_clusters",
      [](const std::string& name, int cluster, int shared) {
        return prsr::active_clusters(format(name), cluster, shared);
      },
      py::arg("format"), py::arg("cluster"), py::arg("shared"),
      "The number of clusters of this size that run concurrently on the current device.");
  module.def(
      "launch_vertical",
      [](const std::string& name, const prsr::VerticalRow& row, bool shared_loads,
         uint64_t stream) { prsr::launch_vertical(format(name), row, shared_loads, stream); },
      py::arg("format"), py::arg("row"), py::arg("shared_loads"), py::arg("stream"),
      "Queue the vertical stack of a row on a stream of the current device.");
  module.def(
      "launch_horizontal",
      [](const std::string& name, const prsr::HorizontalRow& row, int cluster, int shared,
         uint64_t stream) { prsr::launch_horizontal(format(name), row, cluster, shared, stream); },
      py::arg("format"), py::arg("row"), py::arg("cluster"), py::arg("shared"), py::arg("stream"),
      "Queue the draws of a row on a stream of the current device.");
  module.def("measure", &prsr::measure, py::arg("scratch"), py::arg("bytes"), py::arg("stream"),
             "For benchmarks: limits of the current device (csrc/cuda/measure.h).");
}
