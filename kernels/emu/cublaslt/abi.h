// cublasLt's own types, as far as this library speaks it: handles are addresses, results and attributes are numbers.
#pragma once

#include <cstddef>
#include <cstdint>

enum Status : int {
    SUCCESS = 0,
    NOT_INITIALIZED = 1,
    INVALID_VALUE = 7,
    EXECUTION_FAILED = 13,
    NOT_SUPPORTED = 15,
};

enum DataType : int { F32 = 0, BF16 = 14, E4M3 = 28 };

enum Compute : int { SUMS_F32 = 68 };

enum Operation : int { AS_IS = 0, TRANSPOSED = 1 };

enum ScaleMode : int { SCALAR = 0, OUTER_VECTOR = 3, VECTOR_128 = 4 };

enum DescriptionAttribute : int {
    POINTER_MODE = 2,
    TRANSPOSE_A = 3,
    TRANSPOSE_B = 4,
    EPILOGUE = 7,
    A_SCALE_POINTER = 17,
    B_SCALE_POINTER = 18,
    FAST_ACCUMULATION = 25,
    A_SCALE_MODE = 31,
    B_SCALE_MODE = 32,
};

enum LayoutAttribute : int { LAYOUT_COLUMNS = 3 };

enum PreferenceAttribute : int { MAX_WORKSPACE_BYTES = 1 };

struct Algorithm {
    uint64_t data[8];
};

struct HeuristicResult {
    Algorithm algorithm;
    size_t workspace_bytes;
    Status state;
    float waves;
    int reserved[4];
};

// A matrix, its columns `leading` elements apart.
struct Layout {
    DataType type;
    uint64_t rows;
    uint64_t columns;
    int64_t leading;
};

struct Description {
    Compute compute;
    DataType scale_type;
    Operation transpose[2] = {AS_IS, AS_IS};
    const float* scales[2] = {nullptr, nullptr};
    ScaleMode scale_mode[2] = {SCALAR, SCALAR};
};

struct Preference {
    size_t max_workspace_bytes = 0;
};

// An entry point: found by its name, so it keeps the name that the library gives it.
#define CUBLASLT_API extern "C" __attribute__((visibility("default")))
