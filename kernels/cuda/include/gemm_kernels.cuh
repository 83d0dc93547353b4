// The kernels of a matmul: NAME_store_16 to NAME_glu_128, one for each tile and each thing that becomes of a product.
//
// The last argument is a function template that does a block's work, given TM and OUT: `coded<W4, TM, OUT>` of a PARAMS. BLOCKS of it
// are resident on an SM, or more; of 128 rows one.
#pragma once

#include "gemm_out.cuh"

#define GEMM_KERNEL(NAME, ROWS, BECOMES, PARAMS, BLOCKS, ...)                                                                   \
  extern "C" __global__ void __launch_bounds__(Layout<ROWS>::THREADS, ROWS == 128 ? 1 : BLOCKS) NAME##_##ROWS(const PARAMS p) { \
    constexpr int TM = ROWS;                                                                                                    \
    constexpr Out OUT = Out::BECOMES;                                                                                           \
    __VA_ARGS__(p);                                                                                                             \
  }

#define GEMM_TILE(ROWS, NAME, ...)                    \
  GEMM_KERNEL(NAME##_store, ROWS, Store, __VA_ARGS__) \
  GEMM_KERNEL(NAME##_add, ROWS, Add, __VA_ARGS__)     \
  GEMM_KERNEL(NAME##_glu, ROWS, Glu, __VA_ARGS__)

#define EXPERTS_TILE(ROWS, NAME, ...)                 \
  GEMM_KERNEL(NAME##_store, ROWS, Store, __VA_ARGS__) \
  GEMM_KERNEL(NAME##_glu, ROWS, Glu, __VA_ARGS__)

#define GEMM_KERNELS(...) GEMM_TILE(16, __VA_ARGS__) GEMM_TILE(64, __VA_ARGS__) GEMM_TILE(128, __VA_ARGS__)
#define EXPERTS_KERNELS(...) EXPERTS_TILE(16, __VA_ARGS__) EXPERTS_TILE(64, __VA_ARGS__)
