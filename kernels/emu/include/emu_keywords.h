// CUDA's keywords and built-in variables as macros. Last in cuda_emu.h: no other header may see them.
#pragma once

#include "emu_runtime.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
// The generated file hands the bound to the launch, which checks it.
#define __launch_bounds__(...)

// Shared memory that the runtime does not know is neither poisoned nor bounded, so it does not compile.
#define __shared__ use_SMEM_ARRAY_or_DYN_SMEM_for_shared_memory

#define threadIdx (emu::current->index)
#define blockIdx (emu::current->block)
#define blockDim (emu::current->block_size)
#define gridDim (emu::current->grid_size)
#define warpSize 32

// The address of the lambda's variable tells one declaration from another, and one template instance from the next.
#define SMEM_ARRAY(T, name, n)                                                                             \
    T(&name)[n] = *static_cast<T(*)[n]>(emu::static_shared(                                                \
        []() -> const void* {                                                                              \
            static char variable;                                                                         \
            return &variable;                                                                              \
        }(),                                                                                               \
        sizeof(T) * (n), emu::Site::here("SMEM_ARRAY " #name)))

#define DYN_SMEM(name) unsigned char* const name = static_cast<unsigned char*>(emu::dynamic_shared())

#define __syncthreads() static_cast<void>(emu::barrier(true, emu::Site::here("__syncthreads")))
