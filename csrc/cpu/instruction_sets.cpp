#include "instruction_sets.h"

#include <algorithm>
#include <stdexcept>

namespace prsr {

namespace {

std::vector<std::string> find_instruction_sets() {
#if defined(__x86_64__)
  std::vector<std::string> names = {"baseline"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    names.push_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      names.push_back("avx512");
      if (__builtin_cpu_supports("avx512bf16")) names.push_back("avx512bf16");
    }
  }
  return names;
#elif defined(__aarch64__)
  return {"neon"};
#else
  return {"baseline"};
#endif
}

}  // namespace

const std::vector<std::string>& instruction_sets() {
  static const std::vector<std::string> names = find_instruction_sets();
  return names;
}

void check_instruction_set(const std::string& name) {
  const std::vector<std::string>& names = instruction_sets();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    throw std::invalid_argument("no instruction set " + name + " here");
  }
}

}  // namespace prsr
