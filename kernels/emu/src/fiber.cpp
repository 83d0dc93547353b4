// The switch between stacks: the registers that a called function must keep, and the stack pointer.
#include "fiber.h"

#include <cstdint>

extern "C" void emu_switch_stack(void** from, void* to);

#if defined(__x86_64__)

asm(R"(
.text
.globl emu_switch_stack
.hidden emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
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
.size emu_switch_stack, . - emu_switch_stack
)");

// Six registers, the address to return to, and a word that stands for the caller's return address: entry finds the
// stack as a call would leave it, 8 bytes off a multiple of 16.
static constexpr int SAVED_WORDS = 8;
static constexpr int RETURN_WORD = 6;

#elif defined(__aarch64__)

asm(R"(
.text
.globl emu_switch_stack
.hidden emu_switch_stack
.type emu_switch_stack, %function
emu_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emu_switch_stack, . - emu_switch_stack
)");

// Twenty registers; x30, to which `ret` goes, is the twelfth.
static constexpr int SAVED_WORDS = 20;
static constexpr int RETURN_WORD = 11;

#else
#error "the emulator knows how to switch stacks on x86-64 and aarch64"
#endif

namespace emu {

void switch_stack(void** from, void* to) { emu_switch_stack(from, to); }

void Fiber::look_away() {
    if (!unwatched) {
        unwatched = true;
        sanitizer::look_away();
    }
}

void Fiber::look_again() {
    if (unwatched) {
        unwatched = false;
        sanitizer::look_again();
    }
}

void Fiber::prepare(void (*entry)()) {
    sanitizer::forget(*stack);
    auto* const top = reinterpret_cast<uintptr_t*>(static_cast<char*>(const_cast<void*>(stack->bottom)) + stack->size);
    uintptr_t* const saved = top - SAVED_WORDS;
    for (int at = 0; at < SAVED_WORDS; at++) {
        saved[at] = 0;
    }
    saved[RETURN_WORD] = reinterpret_cast<uintptr_t>(entry);
    stack_pointer = saved;
}

}  // namespace emu
