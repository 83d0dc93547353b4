// Kernels by name, in the order of no importance in which compiled files made them known.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "emu_launch.h"

namespace emu {
namespace {

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> known;
    return known;
}

}  // namespace

Registration::Registration(const Kernel& kernel) {
    if (!kernels().emplace(kernel.name, kernel).second) {
        fprintf(stderr, "emu: two kernels are called %s\n", kernel.name);
        abort();
    }
}

const Kernel* find_kernel(const char* name) {
    const auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

}  // namespace emu
