// The runtime's functions that kernels call, each handed to the part of the running block that it is about.
#include "emu_runtime.h"

#include <cstdarg>
#include <cstdio>
#include <string>

#include "block.h"

namespace emu {
namespace {

std::string place(const Site& site) {
    const uint3 block = current->block;
    const uint3 thread = current->index;
    char text[512];
    snprintf(text, sizeof text, "%s at %s:%d, block (%u, %u, %u), thread (%u, %u, %u): ", site.operation, site.file, site.line,
             block.x, block.y, block.z, thread.x, thread.y, thread.z);
    return text;
}

void meet(uint32_t mask, bool whole, const Site& site, void* operands, Exchange exchange) {
    Block& block = Block::running();
    const InRuntime in_runtime(block.running_fiber());
    block.warps[current->warp].meet(block, mask, whole, site, operands, exchange);
}

}  // namespace

void fail(Failure failure, const Site& site, const char* format, ...) {
    Block::running().running_fiber().look_away();
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    Block::running().end_with(failure, place(site) + text);
}

BarrierResult barrier(bool predicate, const Site& site) {
    Block& block = Block::running();
    const InRuntime in_runtime(block.running_fiber());
    return block.barrier.arrive(block, predicate, site);
}

void collective(uint32_t mask, const Site& site, void* operands, Exchange exchange) {
    meet(mask, false, site, operands, exchange);
}

void whole_warp(const Site& site, void* operands, Exchange exchange) {
    meet(~0u, true, site, operands, exchange);
}

void* dynamic_shared() { return Block::running().shared.dynamic(); }

void* static_shared(const void* variable, size_t bytes, const Site& site) {
    Block& block = Block::running();
    const InRuntime in_runtime(block.running_fiber());
    return block.shared.array(variable, bytes, site);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes, const Site& site) {
    const auto unaligned = [bytes](const void* address) { return reinterpret_cast<uintptr_t>(address) % bytes != 0; };
    if (unaligned(to) || (source_bytes > 0 && unaligned(from))) {
        fail(Failure::misaligned, site, "an address is not a multiple of %u", bytes);
    }
    Block::running().running_fiber().copies.issue({to, from, bytes, source_bytes}, Block::running().is_early());
}

void copy_commit() { Block::running().running_fiber().copies.commit(); }

void wait_for_former_kernel(const Site& site) {
    Block& block = Block::running();
    const InRuntime in_runtime(block.running_fiber());
    block.wait_for_former(site);
}

void copy_wait(unsigned pending) { Block::running().running_fiber().copies.wait(pending); }

}  // namespace emu
