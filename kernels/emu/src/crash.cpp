// The handler of signals that a kernel can cause.
#include "crash.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "block.h"

namespace emu {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(EMU_THREAD_SANITIZER)
constexpr bool QUIET = true;
#else
constexpr bool QUIET = false;
#endif

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr size_t STACK_BYTES = 64 << 10;

// What handled the signals before, by their number.
struct sigaction earlier[NSIG];

const char* what_happened(int signal, const void* address) {
    if (Stacks::is_guard(*Block::running().running_fiber().stack, address)) {
        return "needs more stack than there is, at";
    }
    return signal == SIGSEGV || signal == SIGBUS ? "touches" : "stops at";
}

// Formats into a buffer of its own, and hands the signal on: the instruction runs again, and meets the earlier handler.
void report(int signal, siginfo_t* info, void*) {
    if (current != nullptr) {
        const uint3 block = current->block;
        const uint3 thread = current->index;
        char text[256];
        const int length = snprintf(text, sizeof text, "emu: %s: block (%u, %u, %u), thread (%u, %u, %u) %s address %p\n",
                                    Block::running().kernel_name(), block.x, block.y, block.z, thread.x, thread.y, thread.z,
                                    what_happened(signal, info->si_addr), info->si_addr);
        [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(length));
    }
    sigaction(signal, &earlier[signal], nullptr);
}

bool install() {
    for (int signal : SIGNALS) {
        struct sigaction action {};
        action.sa_sigaction = report;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(signal, &action, &earlier[signal]);
    }
    return true;
}

}  // namespace

CrashReports::CrashReports() {
    if (QUIET) {
        return;
    }
    [[maybe_unused]] static const bool installed = install();
    stack_t known{};
    sigaltstack(nullptr, &known);
    if (known.ss_flags & SS_DISABLE) {
        stack_ = std::make_unique<char[]>(STACK_BYTES);
        stack_t own{};
        own.ss_sp = stack_.get();
        own.ss_size = STACK_BYTES;
        sigaltstack(&own, nullptr);
    }
}

CrashReports::~CrashReports() {
    if (stack_ != nullptr) {
        stack_t none{};
        none.ss_flags = SS_DISABLE;
        sigaltstack(&none, nullptr);
    }
}

}  // namespace emu
