// Draws all rows of a job that is read from a file, and writes the images to another; used by
// test_arm.py for processors that this machine emulates.
//
//   rows_from_file                         prints the widths of weight strips that the kernel reads
//   rows_from_file INPUT OUTPUT THREADS
//
// INPUT holds 64-bit integers: the fields of PriorConfig, those of Job up to `width`, and the size
// in bytes of each array; then the arrays, in the order in which main() reads them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "instruction_sets.h"

namespace {

// Reads a file from its beginning.
class Reader {
 public:
  explicit Reader(const char* path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  int64_t integer() {
    int64_t value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  // Makes `array` a copy of the next bytes, aligned to cache lines; null if there are none.
  template <typename T>
  void read(T*& array, int64_t size) {
    array = nullptr;
    if (size == 0) return;
    arrays_.emplace_back(std::aligned_alloc(64, (size + 63) / 64 * 64), std::free);
    std::memcpy(arrays_.back().get(), bytes_.data() + at_, size);
    array = static_cast<T*>(arrays_.back().get());
    at_ += size;
  }

 private:
  std::vector<char> bytes_;
  int64_t at_ = 0;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> arrays_;
};

}  // namespace

int main(int count, char** arguments) {
  const prsr::Kernel& kernel = prsr::prior_kernel(prsr::instruction_sets().back());
  if (count == 1) {
    std::printf("%d %d\n", static_cast<int>(kernel.row_strip),
                static_cast<int>(kernel.pixel_strip));
    return 0;
  }
  Reader input(arguments[1]);
  prsr::PriorConfig config;
  for (int64_t* field : {&config.channels, &config.levels, &config.features, &config.layers,
                         &config.reach, &config.first_reach, &config.units, &config.gate_inputs}) {
    *field = input.integer();
  }
  config.bf16 = input.integer() != 0;
  prsr::Job job{};
  for (int64_t* field : {&job.bundles, &job.bundle, &job.height, &job.width}) {
    *field = input.integer();
  }
  int64_t sizes[13];
  for (int64_t& size : sizes) size = input.integer();
  const int64_t* size = sizes;
  const float* weights;
  const int64_t* offsets;
  input.read(weights, *size++);
  input.read(offsets, *size++);
  input.read(job.values, *size++);
  input.read(job.vertical, *size++);
  input.read(job.above, *size++);
  input.read(job.ahead, *size++);
  input.read(job.horizontal, *size++);
  input.read(job.conditioning, *size++);
  input.read(job.features, *size++);
  input.read(job.noise, *size++);
  input.read(job.temperature, *size++);
  input.read(job.mask, *size++);
  input.read(job.image, *size);

  const prsr::Network network(config, weights, offsets);
  if (!prsr::draw_rows(kernel.draw_row, config, network, job, 0, job.height,
                       std::atoll(arguments[3]), [] { return true; })) {
    return 1;
  }
  std::ofstream(arguments[2], std::ios::binary)
      .write(reinterpret_cast<const char*>(job.image), *size);
  return 0;
}
