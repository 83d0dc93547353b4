// Kernels in which threads meet, rightly and wrongly.
#include <stdint.h>

// Each thread hands its number to the previous one. Without the barrier, most read what nobody has written.
__device__ __forceinline__ void hand_on(float* out, bool wait) {
    SMEM_ARRAY(float, scratch, 256);
    scratch[threadIdx.x] = static_cast<float>(threadIdx.x);
    if (wait) {
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = scratch[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void hand_on_at_barrier(float* out) { hand_on(out, true); }

extern "C" __global__ void hand_on_without_barrier(float* out) { hand_on(out, false); }

// Two warps work on one buffer, filled anew by copies in every round. Without the second barrier, one warp fills while the
// other still reads.
template <bool SECOND_BARRIER>
__device__ __forceinline__ void fill_and_read(float* out, const float* in, int rounds) {
    SMEM_ARRAY(float, buffer, 64 * 4);
    const int mine = static_cast<int>(threadIdx.x) * 4;
    float sum = 0.0f;
    for (int round = 0; round < rounds; round++) {
        cp_async16(buffer + mine, in + round * 256 + mine);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        // Lanes meet a few times, as they do around tensor cores.
        for (int step = 0; step < 4; step++) {
            sum += __shfl_xor_sync(0xffffffffu, buffer[(mine + 128 + step) % 256], 1);
        }
        if (SECOND_BARRIER) {
            __syncthreads();
        }
    }
    out[threadIdx.x] = sum;
}

extern "C" __global__ void fill_and_read_in_turn(float* out, const float* in, int rounds) { fill_and_read<true>(out, in, rounds); }

extern "C" __global__ void fill_while_others_read(float* out, const float* in, int rounds) { fill_and_read<false>(out, in, rounds); }

// What is left of the previous block's shared memory.
extern "C" __global__ void read_shared(float* out) {
    SMEM_ARRAY(float, scratch, 32);
    out[blockIdx.x * 32 + threadIdx.x] = scratch[threadIdx.x];
    scratch[threadIdx.x] = 1.0f;
}

extern "C" __global__ void barrier_counts(int* out) {
    const int odd = threadIdx.x % 2;
    const int count = __syncthreads_count(odd);
    const int any = __syncthreads_or(threadIdx.x == 7);
    const int all = __syncthreads_and(threadIdx.x != 7);
    out[threadIdx.x] = count * 4 + any * 2 + all;
}

// Threads beyond `live` exit at once; the others still meet.
extern "C" __global__ void meet_after_exits(int* out, int live) {
    if (static_cast<int>(threadIdx.x) >= live) {
        return;
    }
    __syncthreads();
    out[threadIdx.x] = __popc(__ballot_sync(0xffffffffu, 1));
}

extern "C" __global__ void barrier_in_a_branch(int* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads();
        out[threadIdx.x] = 1;
    }
}

extern "C" __global__ void shuffle_in_a_branch(int* out) {
    int value = static_cast<int>(threadIdx.x);
    if (threadIdx.x % 2 == 0) {
        value = __shfl_xor_sync(0xffffffffu, value, 1);
    } else {
        value = __shfl_xor_sync(0xffffffffu, value, 2);
    }
    out[threadIdx.x] = value;
}

// Half of a warp waits for the block, the other half for the warp.
extern "C" __global__ void barrier_against_shuffle(int* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
    }
}

extern "C" __global__ void shuffle_from_nowhere(int* out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
    }
}

extern "C" __global__ void mask_without_self(int* out) { out[threadIdx.x] = __shfl_sync(0x1u, 1, 0); }

extern "C" __global__ void multiply_in_half_a_warp(float* out) {
    const uint32_t a[4] = {};
    const uint32_t b[2] = {};
    float d[4] = {};
    if (threadIdx.x < 16) {
        return;
    }
    mma_m16n8k16_bf16(d, a, b);
    out[threadIdx.x] = d[0];
}

// Every way to pass values between lanes, eight results a lane.
extern "C" __global__ void exchange(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    int* mine = out + lane * 8;
    mine[0] = __shfl_sync(0xffffffffu, lane, 5, 8);
    mine[1] = __shfl_xor_sync(0xffffffffu, lane, 3);
    mine[2] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
    mine[3] = __shfl_up_sync(0xffffffffu, lane, 3, 16);
    mine[4] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
    mine[5] = __reduce_add_sync(0xffffffffu, lane);
    mine[6] = __reduce_max_sync(0xffffffffu, lane ^ 21);
    mine[7] = __any_sync(0xffffffffu, lane == 9) * 2 + __all_sync(0xffffffffu, lane == 9);
}

// Each block adds its threads; the last block to finish writes the total.
extern "C" __global__ void last_block_adds(unsigned* sums, unsigned* arrived, unsigned* total) {
    SMEM_ARRAY(unsigned, sum, 1);
    SMEM_ARRAY(bool, last, 1);
    if (threadIdx.x == 0) {
        sum[0] = 0;
    }
    __syncthreads();
    atomicAdd(&sum[0], blockIdx.x + 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum[0];
        __threadfence();
        last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last[0] && threadIdx.x == 0) {
        unsigned all = 0;
        for (unsigned at = 0; at < gridDim.x; at++) {
            all += atomicAdd(&sums[at], 0u);
        }
        *total = all;
    }
}

// Each thread waits for the kernel before; or those of even number only.
extern "C" __global__ void waits_for_former(float* out) {
    after_former_kernel();
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
}

extern "C" __global__ void waits_in_part(float* out) {
    if (threadIdx.x % 2 == 0) {
        after_former_kernel();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
}

// Each thread adds one to a number that a kernel before wrote: after it has waited, or too early, by itself or behind its back.
extern "C" __global__ void waits_and_adds(float* out) {
    after_former_kernel();
    out[blockIdx.x * blockDim.x + threadIdx.x] += 1.0f;
}

extern "C" __global__ void reads_and_waits(float* out) {
    const float number = out[blockIdx.x * blockDim.x + threadIdx.x];
    after_former_kernel();
    out[blockIdx.x * blockDim.x + threadIdx.x] = number + 1.0f;
}

extern "C" __global__ void copies_and_waits(float* out) {
    SMEM_ARRAY(float, numbers, 4 * 32);
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    cp_async16(numbers + threadIdx.x * 4, out + at / 4 * 4);
    cp_async_commit();
    after_former_kernel();
    cp_async_wait<0>();
    __syncthreads();
    out[at] = numbers[threadIdx.x * 4 + at % 4] + 1.0f;
}

extern "C" __global__ void writes_and_waits(float* out) {
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
    after_former_kernel();
}
