#define PRSR_DEFINE_KERNELS
#include "kernels.h"

template struct prsr::Kernels<prsr::Tf32>;
