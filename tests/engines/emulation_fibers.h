// Fibers of the emulation: switching between stacks. Written by hand, because the C library's
// swapcontext makes a system call each time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace prsr::emulation {

// A point of execution with a stack of its own.
class Context {
 public:
  // The context that is running already.
  Context() = default;
  explicit Context(void (*entry)());
  void switch_to(Context& other);

 private:
  static constexpr size_t kStack = 64 * 1024;
  std::unique_ptr<char[]> stack_;
  void* pointer_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_ = nullptr;
  void (*entry_)() = nullptr;
  static inline Context *from_ = nullptr, *to_ = nullptr;
  static void start();
  static void arrived();
};

#if !defined(__x86_64__)
#error "the emulation switches stacks by hand, for x86-64 alone so far"
#endif

extern "C" void prsr_switch(void** from, void* to);
__asm__(R"(
  .pushsection .text
  .weak prsr_switch
  .type prsr_switch, @function
prsr_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .popsection
)");

inline Context::Context(void (*entry)()) : stack_(new char[kStack]), size_(kStack), entry_(entry) {
  bottom_ = stack_.get();
  auto top = reinterpret_cast<uintptr_t>(stack_.get() + kStack) & ~uintptr_t{15};
  // The layout after a call: the return address, which start() never uses, is 8 bytes beyond a
  // multiple of 16.
  auto* frame = reinterpret_cast<void**>(top) - 8;
  std::fill(frame, frame + 8, nullptr);
  frame[6] = reinterpret_cast<void*>(&Context::start);
  pointer_ = frame;
}

inline void Context::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to_->fake_, &from_->bottom_, &from_->size_);
#endif
}

inline void Context::start() {
  arrived();
  to_->entry_();
}

inline void Context::switch_to(Context& other) {
  from_ = this;
  to_ = &other;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_, other.bottom_, other.size_);
#endif
  prsr_switch(&pointer_, other.pointer_);
  arrived();
}

}  // namespace prsr::emulation
