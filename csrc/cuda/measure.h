// What benchmarks ask of a GPU, to hold the kernels' times against.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace prsr {

// Measures on the current device; takes some milliseconds. In clocks, if not said otherwise:
// "hop to 1", "hop to 16": from st.async of 512 bytes to the end of the wait, half a round trip;
// "cluster barrier"; "MAC a clock": of 16-bit products on one multiprocessor; "L2 bytes a clock,
// one" and "…, all" of a multiprocessor; "launch gap, us": microseconds from kernel to kernel of a
// stream. What the device cannot do is left out.
//
// `scratch`: device memory of so many bytes, at least 32 MiB.
std::map<std::string, double> measure(uint64_t scratch, int64_t bytes, uint64_t stream);

}  // namespace prsr
