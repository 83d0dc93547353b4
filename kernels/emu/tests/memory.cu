// Kernels that use memory, rightly and wrongly.
#include <stdint.h>

// Copies 16 bytes a thread through shared memory. `awaited` is how many groups may stay under way where it waits.
template <int PENDING, bool BARRIER>
__device__ __forceinline__ void through_shared(float* out, const float* in, bool pred) {
    SMEM_ARRAY(float, stage, 32 * 4);
    cp_async16(stage + threadIdx.x * 4, in + threadIdx.x * 4, pred);
    cp_async_commit();
    cp_async_wait<PENDING>();
    if (BARRIER) {
        __syncthreads();
    }
    for (int at = 0; at < 4; at++) {
        out[threadIdx.x * 4 + at] = stage[(threadIdx.x * 4 + at + 4) % 128];
    }
    // Whoever is read from must not go on to wait.
    __syncthreads();
    cp_async_wait<0>();
}

extern "C" __global__ void copy(float* out, const float* in) { through_shared<0, true>(out, in, true); }

extern "C" __global__ void copy_nothing(float* out, const float* in) { through_shared<0, true>(out, in, false); }

extern "C" __global__ void copy_too_early(float* out, const float* in) { through_shared<1, true>(out, in, true); }

extern "C" __global__ void copy_without_barrier(float* out, const float* in) { through_shared<0, false>(out, in, true); }

extern "C" __global__ void copy_and_exit(const float* in) {
    SMEM_ARRAY(float, stage, 32 * 4);
    cp_async16(stage + threadIdx.x * 4, in + threadIdx.x * 4);
    cp_async_commit();
}

extern "C" __global__ void copy_misaligned(const float* in) {
    SMEM_ARRAY(float, stage, 32 * 4);
    cp_async16(stage, in + 1);
    cp_async_commit();
    cp_async_wait<0>();
}

extern "C" __global__ void load_misaligned(float* out, const float* in) {
    const float4 four = *reinterpret_cast<const float4*>(in + 1);
    out[threadIdx.x] = four.x;
}

extern "C" __global__ void write_beyond(float* out, int count) { out[count + threadIdx.x] = 0.0f; }

extern "C" __global__ void write_beyond_shared(float* out) {
    DYN_SMEM(bytes);
    float* const scratch = reinterpret_cast<float*>(bytes);
    scratch[threadIdx.x] = 1.0f;
    out[threadIdx.x] = scratch[threadIdx.x];
}

extern "C" __global__ void index_beyond_array(float* out, int at) {
    SMEM_ARRAY(float, scratch, 32);
    scratch[at] = 1.0f;
    out[0] = scratch[at];
}

extern "C" __global__ void too_much_static_shared(float* out) {
    SMEM_ARRAY(float, first, 8 * 1024);
    SMEM_ARRAY(float, second, 4 * 1024 + 1);
    first[threadIdx.x] = 1.0f;
    second[threadIdx.x] = first[threadIdx.x];
    out[threadIdx.x] = second[threadIdx.x];
}

// Two threads of a block write one place.
extern "C" __global__ void race_in_a_block(float* out) {
    if (threadIdx.x < 2) {
        out[blockIdx.x] = static_cast<float>(threadIdx.x);
    }
}

// Blocks count in one place.
extern "C" __global__ void race_between_blocks(float* out) { out[0] = out[0] + 1.0f; }

extern "C" __global__ void __launch_bounds__(64) bounded(float* out) { out[threadIdx.x] = 1.0f; }

extern "C" __global__ void write_nowhere(int* out) { out[threadIdx.x] = 1; }

// Deeper than any kernel goes; each call keeps something that the next one may change.
__device__ int descend(volatile int* above, int depth) {
    volatile int here[64];
    here[depth % 64] = *above + depth;
    return depth == 0 ? here[0] : descend(here, depth - 1) + here[depth % 64];
}

extern "C" __global__ void descend_far(int* out, int depth) { out[0] = descend(out, depth); }
