// Entry points that make and change what a product is described by. An attribute that products here do not heed is refused.
#include <cstdio>
#include <cstring>

#include "abi.h"

namespace {

Status refuse(const char* what, int attribute) {
    fprintf(stderr, "emu: cublasLt: %s attribute %d is not emulated\n", what, attribute);
    return NOT_SUPPORTED;
}

// Copies a value of exactly T's size.
template <class T>
Status take(T& to, const void* value, size_t bytes) {
    if (value == nullptr || bytes != sizeof(T)) {
        return INVALID_VALUE;
    }
    memcpy(&to, value, sizeof(T));
    return SUCCESS;
}

// Of an attribute that may be set, but only to one value.
Status expect(int expected, const void* value, size_t bytes) {
    int found;
    const Status status = take(found, value, bytes);
    return status != SUCCESS ? status : (found == expected ? SUCCESS : NOT_SUPPORTED);
}

}  // namespace

CUBLASLT_API size_t cublasLtGetVersion() { return 120900; }

CUBLASLT_API Status cublasLtCreate(void** handle) {
    *handle = new char;
    return SUCCESS;
}

CUBLASLT_API Status cublasLtDestroy(void* handle) {
    delete static_cast<char*>(handle);
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmulDescCreate(Description** description, Compute compute, DataType scale_type) {
    *description = new Description{compute, scale_type};
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t bytes) {
    constexpr int HOST = 0;
    constexpr int EPILOGUE_DEFAULT = 1;
    switch (attribute) {
        case POINTER_MODE:
            return expect(HOST, value, bytes);
        case TRANSPOSE_A:
        case TRANSPOSE_B:
            return take(description->transpose[attribute - TRANSPOSE_A], value, bytes);
        case EPILOGUE:
            return expect(EPILOGUE_DEFAULT, value, bytes);
        case A_SCALE_POINTER:
        case B_SCALE_POINTER:
            return take(description->scales[attribute - A_SCALE_POINTER], value, bytes);
        case A_SCALE_MODE:
        case B_SCALE_MODE:
            return take(description->scale_mode[attribute - A_SCALE_MODE], value, bytes);
        case FAST_ACCUMULATION:
            return bytes == 1 ? SUCCESS : INVALID_VALUE;
        default:
            return refuse("matmul description", attribute);
    }
}

CUBLASLT_API Status cublasLtMatrixLayoutCreate(Layout** layout, DataType type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (leading < static_cast<int64_t>(rows)) {
        return INVALID_VALUE;
    }
    *layout = new Layout{type, rows, columns, leading};
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, size_t bytes) {
    return attribute == LAYOUT_COLUMNS ? take(layout->columns, value, bytes) : refuse("matrix layout", attribute);
}

CUBLASLT_API Status cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t bytes) {
    return attribute == MAX_WORKSPACE_BYTES ? take(preference->max_workspace_bytes, value, bytes) : refuse("preference", attribute);
}
