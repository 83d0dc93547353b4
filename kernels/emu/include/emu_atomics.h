// Atomics: sequentially consistent, which is stronger than the hardware's. A race that only a weaker order shows, the
// thread sanitizer does not see either; the kernels' rule is that blocks meet only through the last block to arrive.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emu_math.h"

namespace emu {

// The unsigned integer of a type's size: atomics compare bits.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Replaces a value by what `update` makes of it; returns the old one.
template <class T, class Update>
inline T atomic_update(T* at, Update update) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are of 4 or 8 bytes");
    auto* bits = reinterpret_cast<Bits<T>*>(at);
    Bits<T> old = __atomic_load_n(bits, __ATOMIC_SEQ_CST);
    Bits<T> replacement;
    do {
        replacement = same_bits<Bits<T>>(static_cast<T>(update(same_bits<T>(old))));
    } while (!__atomic_compare_exchange_n(bits, &old, replacement, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return same_bits<T>(old);
}

// A parameter that takes no part in deduction: atomicAdd(unsigned*, 1) must compile.
template <class T>
using Same = std::common_type_t<T>;

}  // namespace emu

template <class T>
inline T atomicAdd(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old + value; });
}

template <class T>
inline T atomicSub(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old - value; });
}

template <class T>
inline T atomicMax(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old < value ? value : old; });
}

template <class T>
inline T atomicMin(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return value < old ? value : old; });
}

template <class T>
inline T atomicOr(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old | value; });
}

template <class T>
inline T atomicAnd(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old & value; });
}

template <class T>
inline T atomicXor(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old ^ value; });
}

template <class T>
inline T atomicExch(T* at, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T) { return value; });
}

template <class T>
inline T atomicCAS(T* at, emu::Same<T> expected, emu::Same<T> value) {
    return emu::atomic_update(at, [=](T old) { return old == expected ? value : old; });
}

// Counts up to and including `limit`, then starts at zero.
inline unsigned atomicInc(unsigned* at, unsigned limit) {
    return emu::atomic_update(at, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}

// The thread sanitizer knows no fences; every atomic above orders more than they would.
inline void __threadfence() {
#if !defined(__SANITIZE_THREAD__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
