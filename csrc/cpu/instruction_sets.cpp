#include "instruction_sets.h"

#include <algorithm>
#include <stdexcept>

#if defined(PRSR_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace prsr {

namespace {

#if defined(PRSR_AMX)
// Whether the processor has AMX with bfloat16, and Linux lets this process use it. Asking again is
// harmless, and so is the permission: memory for tiles is allocated when a thread first uses one.
bool amx_permitted() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1 << 22, kTile = 1 << 24;  // of leaf 7
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTile)) return false;
  constexpr unsigned kConfiguration = 1 << 17, kData = 1 << 18;  // of the states that are saved
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (!(low & kConfiguration) || !(low & kData)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h, since Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<std::string> find_instruction_sets() {
#if defined(__x86_64__)
  std::vector<std::string> names = {"baseline"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    names.push_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      names.push_back("avx512");
      if (__builtin_cpu_supports("avx512bf16")) {
        // Not last, because it has not been measured.
#if defined(PRSR_EMULATED_AMX)
        names.push_back("amx-emulated");
#endif
#if defined(PRSR_AMX)
        if (amx_permitted()) names.push_back("amx");
#endif
        names.push_back("avx512bf16");
      }
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
