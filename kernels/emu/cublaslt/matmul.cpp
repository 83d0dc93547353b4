// Entry points that choose an algorithm and that multiply: a plain loop, enqueued in the stream's order through the driver. They
// refuse what the hardware refuses, and memory that is not the device's.
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "abi.h"
#include "emu_numbers.h"

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);
extern "C" int cuDeviceGetAttribute(int* value, int attribute, int device);
extern "C" int cuMemGetAddressRange_v2(unsigned long long* base, size_t* bytes, unsigned long long address);

namespace {

// What an algorithm wants, so that a caller who brings none is noticed.
constexpr size_t WORKSPACE_BYTES = size_t{1} << 20;

Status refuse(Status status, const char* why) {
    fprintf(stderr, "emu: cublasLt: %s\n", why);
    return status;
}

struct Product {
    Description how;
    Layout a, b, d;
    float alpha, beta;
    const void *a_data, *b_data, *c_data;
    void* d_data;

    uint64_t k() const { return how.transpose[0] == TRANSPOSED ? a.rows : a.columns; }
};

// Inputs under one scale of a mode.
uint64_t inputs_per_scale(const Product& p) { return p.how.scale_mode[0] == VECTOR_128 ? 128 : p.k(); }

uint64_t scale_groups(const Product& p) { return (p.k() + inputs_per_scale(p) - 1) / inputs_per_scale(p); }

// What scales by row want, which only Hopper has.
Status check_scales(const Product& p) {
    constexpr int MAJOR_CAPABILITY = 75;
    int major = 0;
    if (cuDeviceGetAttribute(&major, MAJOR_CAPABILITY, 0) != 0 || major != 9) {
        return refuse(NOT_SUPPORTED, "scales by row want compute capability 9.0");
    }
    if (p.how.scale_mode[0] == VECTOR_128 && (p.d.rows % 4 != 0 || p.d.columns % 4 != 0)) {
        return refuse(NOT_SUPPORTED, "scales of 128 inputs lie in whole 16 bytes");
    }
    if (p.how.scales[0] == nullptr || p.how.scales[1] == nullptr) {
        return refuse(INVALID_VALUE, "scales by row, but no pointer to them");
    }
    return SUCCESS;
}

size_t element_bytes(DataType type) { return type == F32 ? 4 : (type == BF16 ? 2 : 1); }

float value(const void* data, DataType type, size_t at) {
    switch (type) {
        case F32:
            return static_cast<const float*>(data)[at];
        case BF16:
            return emu::bf16_value(static_cast<const uint16_t*>(data)[at]);
        default:
            return emu::e4m3_value(static_cast<const uint8_t*>(data)[at]);
    }
}

// Whether shapes and numbers go together, and the hardware takes them.
Status check(const Product& p) {
    const bool transposed_a = p.how.transpose[0] == TRANSPOSED;
    const bool transposed_b = p.how.transpose[1] == TRANSPOSED;
    const uint64_t k_of_b = transposed_b ? p.b.columns : p.b.rows;
    if (p.k() != k_of_b || p.d.rows != (transposed_a ? p.a.columns : p.a.rows) ||
        p.d.columns != (transposed_b ? p.b.rows : p.b.columns)) {
        return refuse(INVALID_VALUE, "the matrices' shapes do not fit");
    }
    if (p.how.compute != SUMS_F32 || p.how.scale_type != F32 || p.a.type != p.b.type || (p.d.type != F32 && p.d.type != BF16)) {
        return refuse(NOT_SUPPORTED, "these types are not multiplied");
    }
    const ScaleMode mode = p.how.scale_mode[0];
    if (p.a.type == BF16) {
        return mode != SCALAR || p.how.scale_mode[1] != SCALAR ? refuse(NOT_SUPPORTED, "bf16 has no scales") : SUCCESS;
    }
    if (p.a.type != E4M3) {
        return refuse(NOT_SUPPORTED, "these types are not multiplied");
    }
    if (!transposed_a || transposed_b) {
        return refuse(NOT_SUPPORTED, "FP8 wants the first matrix transposed and the second as it is");
    }
    if (p.k() % 16 != 0 || p.a.leading % 16 != 0 || p.b.leading % 16 != 0 || p.d.leading * element_bytes(p.d.type) % 16 != 0) {
        return refuse(NOT_SUPPORTED, "FP8 wants columns of whole 16 bytes");
    }
    if (mode != p.how.scale_mode[1] || (mode != SCALAR && mode != OUTER_VECTOR && mode != VECTOR_128)) {
        return refuse(NOT_SUPPORTED, "these scale modes do not go together");
    }
    return mode == SCALAR ? SUCCESS : check_scales(p);
}

// Whether the address has so many bytes behind it, and is aligned as tensor cores want it.
bool is_device(const void* address, size_t bytes) {
    unsigned long long base = 0;
    size_t size = 0;
    const auto at = reinterpret_cast<unsigned long long>(address);
    return at % 16 == 0 && cuMemGetAddressRange_v2(&base, &size, at) == 0 && bytes <= base + size - at;
}

bool is_device(const void* address, const Layout& layout) {
    const size_t elements = layout.columns == 0 ? 0 : (layout.columns - 1) * layout.leading + layout.rows;
    return is_device(address, elements * element_bytes(layout.type));
}

Status check_memory(const Product& p) {
    if (!is_device(p.a_data, p.a) || !is_device(p.b_data, p.b) || !is_device(p.c_data, p.d) || !is_device(p.d_data, p.d)) {
        return refuse(INVALID_VALUE, "a matrix is not aligned, or not in the device's memory");
    }
    const uint64_t groups = scale_groups(p);
    if (p.how.scale_mode[0] != SCALAR &&
        (!is_device(p.how.scales[0], groups * p.d.rows * 4) || !is_device(p.how.scales[1], groups * p.d.columns * 4))) {
        return refuse(INVALID_VALUE, "scales are not aligned, or not in the device's memory");
    }
    return SUCCESS;
}

void multiply(void* data) {
    const Product& p = *static_cast<const Product*>(data);
    const uint64_t a_step = p.how.transpose[0] == TRANSPOSED ? 1 : p.a.leading;
    const uint64_t b_step = p.how.transpose[1] == TRANSPOSED ? p.b.leading : 1;
    const uint64_t group = inputs_per_scale(p);
    const auto scale = [&](int of, uint64_t at, uint64_t k) {
        const float* scales = p.how.scales[of];
        const uint64_t row = k / group * (of == 0 ? p.d.rows : p.d.columns);
        return p.a.type != E4M3 || scales == nullptr ? 1.0f : scales[p.how.scale_mode[of] == SCALAR ? 0 : row + at];
    };
    for (uint64_t column = 0; column < p.d.columns; column++) {
        for (uint64_t row = 0; row < p.d.rows; row++) {
            const uint64_t a_start = a_step == 1 ? row * p.a.leading : row;
            const uint64_t b_start = b_step == 1 ? column * p.b.leading : column;
            float sum = 0.0f;
            for (uint64_t first = 0; first < p.k(); first += group) {
                float part = 0.0f;
                for (uint64_t k = first; k < p.k() && k < first + group; k++) {
                    part += value(p.a_data, p.a.type, a_start + k * a_step) * value(p.b_data, p.b.type, b_start + k * b_step);
                }
                sum += part * scale(0, row, first) * scale(1, column, first);
            }
            const size_t at = column * p.d.leading + row;
            sum *= p.alpha;
            // What is multiplied by zero is not read: it may be anything.
            sum += p.beta == 0.0f ? 0.0f : p.beta * value(p.c_data, p.d.type, at);
            if (p.d.type == F32) {
                static_cast<float*>(p.d_data)[at] = sum;
            } else {
                static_cast<uint16_t*>(p.d_data)[at] = emu::bf16_bits(sum);
            }
        }
    }
}

// A product outlives the call, and in a captured graph every replay: it is kept until the program ends.
Product* keep(const Product& product) {
    static std::mutex mutex;
    static auto* const kept = new std::vector<std::unique_ptr<Product>>;
    const std::lock_guard<std::mutex> lock(mutex);
    kept->push_back(std::make_unique<Product>(product));
    return kept->back().get();
}

// Which products an algorithm is for: those of the same matrices, with any number of columns in the second.
Algorithm algorithm_for(const Product& p) {
    return {{p.d.rows, p.k(), static_cast<uint64_t>(p.a.type), static_cast<uint64_t>(p.d.type), static_cast<uint64_t>(p.how.scale_mode[0]), 0, 0, 1}};
}

bool same(const Algorithm& one, const Algorithm& other) {
    for (int at = 0; at < 8; at++) {
        if (one.data[at] != other.data[at]) {
            return false;
        }
    }
    return true;
}

}  // namespace

CUBLASLT_API Status cublasLtMatmulAlgoGetHeuristic(void* handle, const Description* how, const Layout* a, const Layout* b,
                                                   const Layout* c, const Layout* d, const Preference* preference, int wanted,
                                                   HeuristicResult* results, int* found) {
    *found = 0;
    if (handle == nullptr || wanted < 1 || c->type != d->type || c->leading != d->leading) {
        return INVALID_VALUE;
    }
    const Product product{*how, *a, *b, *d, 1.0f, 0.0f, nullptr, nullptr, nullptr, nullptr};
    if (const Status status = check(product); status != SUCCESS) {
        return status;
    }
    if (preference->max_workspace_bytes < WORKSPACE_BYTES) {
        return refuse(NOT_SUPPORTED, "no algorithm takes so little workspace");
    }
    *found = 1;
    results[0] = {algorithm_for(product), WORKSPACE_BYTES, SUCCESS, 1.0f, {}};
    return SUCCESS;
}

CUBLASLT_API Status cublasLtMatmul(void* handle, const Description* how, const float* alpha, const void* a_data, const Layout* a,
                                   const void* b_data, const Layout* b, const float* beta, const void* c_data, const Layout* c,
                                   void* d_data, const Layout* d, const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                                   void* stream) {
    if (handle == nullptr || c->type != d->type || c->leading != d->leading || c->columns != d->columns) {
        return INVALID_VALUE;
    }
    const Product product{*how, *a, *b, *d, *alpha, *beta, a_data, b_data, c_data, d_data};
    if (const Status status = check(product); status != SUCCESS) {
        return status;
    }
    if (const Status status = check_memory(product); status != SUCCESS) {
        return status;
    }
    if (algorithm != nullptr && !same(*algorithm, algorithm_for(product))) {
        return refuse(INVALID_VALUE, "the algorithm is for other products");
    }
    if (workspace_bytes < WORKSPACE_BYTES || !is_device(workspace, workspace_bytes)) {
        return refuse(INVALID_VALUE, "the workspace is too small, or not in the device's memory");
    }
    return cuLaunchHostFunc(stream, multiply, keep(product)) == 0 ? SUCCESS : EXECUTION_FAILED;
}
