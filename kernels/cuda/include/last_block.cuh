// Work that several blocks share and the last of them to arrive finishes. Nobody waits for anybody.
#pragma once

#include "ptx.cuh"

// Whether this block is the last of `count` that arrive at `counter`; it then sees what each of them wrote before (read it with __ldcg).
// The counter is zero before the first and after the last. `scratch` is four bytes of shared memory that nobody uses any more.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned count, void* scratch) {
  unsigned* earlier = static_cast<unsigned*>(scratch);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) *earlier = atomicInc(counter, count - 1);
  __syncthreads();
  const bool is_last = *earlier == count - 1;
  if (is_last) __threadfence();
  return is_last;
}
