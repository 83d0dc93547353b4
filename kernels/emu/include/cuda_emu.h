// CUDA C++ as plain C++: g++ compiles a kernel file with this header in front (`-include cuda_emu.h -DCUDA_EMU`).
//
// Each CUDA thread becomes a fiber of the runtime in ../src. What is declared here behaves as CUDA's documentation
// says, down to the bits of number conversions; what is not declared here does not compile, and that is meant: a kernel
// may use no feature whose emulation nobody has checked.
//
// Rules for kernel files: no inline PTX outside of ptx.cuh; shared memory through SMEM_ARRAY and DYN_SMEM only, so that it
// is poisoned and bounded; no block waits for another.
#pragma once

// Standard headers come first: kernel files are included inside a namespace, where a header's first inclusion would land.
#include <cassert>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "emu_types.h"
#include "emu_runtime.h"

#include "emu_math.h"
#include "emu_numbers.h"
#include "emu_pairs.h"

#include "emu_atomics.h"
#include "emu_warp.h"

#include "emu_launch.h"
#include "ptx_emu.h"

// Last: its macros would change the headers above.
#include "emu_keywords.h"
