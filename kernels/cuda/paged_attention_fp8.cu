// Attention over a cache of e4m3: see include/paged_attention.cuh.
#include "paged_attention.cuh"

#define INSTANCES(D) \
  extern "C" __global__ void __launch_bounds__(THREADS<D>, 2) attend_fp8_##D(const Attention p) { attend<__nv_fp8_e4m3, D>(p); } \
  extern "C" __global__ void __launch_bounds__(THREADS<D>, 2) attend_span_fp8_##D(const Attention p) { attend_span<__nv_fp8_e4m3, D>(p); }

INSTANCES(16)
INSTANCES(32)
INSTANCES(64)
INSTANCES(80)
INSTANCES(96)
INSTANCES(128)
INSTANCES(256)
