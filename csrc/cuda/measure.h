// Limits of a GPU, for benchmarks.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace prsr {

// Names and values, in the order of measurement.
using Measurements = std::vector<std::pair<std::string, double>>;

// Measures the current device; takes some milliseconds. Results are in clock cycles unless stated
// otherwise: "hop to 1", "hop to 16": from st.async of 512 bytes to the end of the wait, half a
// round trip; "cluster barrier"; "MAC a clock": 16-bit products on one multiprocessor; "L2 bytes a
// clock, one" and "…, all": per multiprocessor; "launch gap, us": microseconds between kernels of a
// stream. Measurements that the device does not support are omitted.
//
// `scratch`: device memory of `bytes` bytes, at least 32 MiB.
Measurements measure(uint64_t scratch, int64_t bytes, uint64_t stream);

}  // namespace prsr
