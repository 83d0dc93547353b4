// Cases of the driver library, through its entry points: strict where a card and its driver are strict.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "abi.h"
#include "harness.h"

using harness::everywhere;
using harness::expect;
using harness::Expected;
using harness::passes;

extern "C" {
Result cuInit(unsigned);
Result cuDeviceGetAttribute(int*, int, int);
Result cuDevicePrimaryCtxRetain(Handle*, int);
Result cuDevicePrimaryCtxRelease_v2(int);
Result cuCtxSynchronize();
Result cuEventCreate(Handle*, unsigned);
Result cuEventQuery(Handle);
Result cuEventRecord(Handle, Handle);
Result cuFuncSetAttribute(Handle, int, int);
Result cuGraphInstantiateWithFlags(Handle*, Handle, unsigned long long);
Result cuGraphLaunch(Handle, Handle);
Result cuLaunchKernel(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void**, void**);
Result cuLaunchKernelEx(const LaunchConfig*, Handle, void**, void**);
Result cuMemAlloc_v2(DevicePointer*, size_t);
Result cuMemAllocAsync(DevicePointer*, size_t, Handle);
Result cuMemFree_v2(DevicePointer);
Result cuMemFreeAsync(DevicePointer, Handle);
Result cuMemGetInfo_v2(size_t*, size_t*);
Result cuMemHostAlloc(void**, size_t, unsigned);
Result cuMemcpyDtoH_v2(void*, DevicePointer, size_t);
Result cuMemcpyDtoHAsync_v2(void*, DevicePointer, size_t, Handle);
Result cuMemcpyHtoDAsync_v2(DevicePointer, const void*, size_t, Handle);
Result cuMemsetD8Async(DevicePointer, unsigned char, size_t, Handle);
Result cuModuleGetFunction(Handle*, Handle, const char*);
Result cuModuleLoadData(Handle*, const void*);
Result cuStreamBeginCapture_v2(Handle, int);
Result cuStreamCreate(Handle*, unsigned);
Result cuStreamEndCapture(Handle, Handle*);
Result cuStreamSynchronize(Handle);
Result cuStreamWaitEvent(Handle, Handle, unsigned);
}

namespace {

constexpr int THREAD_LOCAL_CAPTURE = 1;
constexpr int MAX_DYNAMIC_SHARED = 8;
constexpr unsigned NON_BLOCKING = 1;

void same(Result found, Result expected, const char* what) {
    expect(found == expected, "%s: %d and not %d", what, found, expected);
}

void works(Result result, const char* what) { same(result, SUCCESS, what); }

// A context, a stream, and the kernel that sets the first floats of an array to 1.
struct Host {
    Handle context;
    Handle module;
    Handle kernel;
    Handle stream;
    DevicePointer floats;

    Host() {
        works(cuInit(0), "cuInit");
        works(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
        works(cuModuleLoadData(&module, "tokenmill-emu"), "cuModuleLoadData");
        works(cuModuleGetFunction(&kernel, module, "bounded"), "cuModuleGetFunction");
        works(cuStreamCreate(&stream, NON_BLOCKING), "cuStreamCreate");
        works(cuMemAlloc_v2(&floats, 64 * sizeof(float)), "cuMemAlloc_v2");
    }

    Result launch(DevicePointer out, unsigned threads = 64, unsigned shared_bytes = 0) const {
        void* parameters[] = {&out};
        return cuLaunchKernel(kernel, 1, 1, 1, threads, 1, 1, shared_bytes, stream, parameters, nullptr);
    }

    Result read(float* to) const { return cuMemcpyDtoH_v2(to, floats, sizeof(float)); }

    void begin_capture() const { works(cuStreamBeginCapture_v2(stream, THREAD_LOCAL_CAPTURE), "cuStreamBeginCapture_v2"); }
};

float* pinned_float() {
    void* address = nullptr;
    works(cuMemHostAlloc(&address, sizeof(float), 0), "cuMemHostAlloc");
    return static_cast<float*>(address);
}

}  // namespace

CASE(driver_without_a_device, passes()) {
    setenv("TOKENMILL_EMU_NO_DEVICE", "1", 1);
    same(cuInit(0), NO_DEVICE, "cuInit");
}

CASE(driver_describes_its_card, passes()) {
    works(cuInit(0), "cuInit");
    const int expected[][2] = {{75, 9}, {76, 0}, {16, 4}, {8, 49152}, {97, 232448}, {10, 32}};
    for (const auto& [attribute, value] : expected) {
        int found = -1;
        works(cuDeviceGetAttribute(&found, attribute, 0), "cuDeviceGetAttribute");
        expect(found == value, "attribute %d is %d", attribute, found);
    }
}

CASE(driver_takes_known_images, passes()) {
    const Host host;
    Handle module;
    for (const char* image : {"\x50\xed\x55\xba", "\x7f\x45\x4c\x46", "// PTX\n.version 9.0\n", "tokenmill-emu and more"}) {
        works(cuModuleLoadData(&module, image), image);
    }
    for (const char* image : {"", "tokenmill", "/usr/bin/true", "MZxx"}) {
        same(cuModuleLoadData(&module, image), INVALID_IMAGE, image);
    }
    Handle function;
    same(cuModuleGetFunction(&function, host.module, "no_such_kernel"), NOT_FOUND, "cuModuleGetFunction");
}

CASE(driver_checks_launches, passes()) {
    const Host host;
    same(host.launch(host.floats, 65), LAUNCH_OUT_OF_RESOURCES, "more threads than the bound");
    same(host.launch(host.floats, 64, 49153), INVALID_VALUE, "shared memory without the attribute");
    same(cuFuncSetAttribute(host.kernel, MAX_DYNAMIC_SHARED, 232449), INVALID_VALUE, "too large an attribute");
    works(cuFuncSetAttribute(host.kernel, MAX_DYNAMIC_SHARED, 49153), "cuFuncSetAttribute");
    works(host.launch(host.floats, 64, 49153), "shared memory with the attribute");
    same(cuLaunchKernel(host.kernel, 1, 1, 1, 1, 1, 1, 0, host.stream, nullptr, nullptr), INVALID_VALUE, "no parameters");
    void* null_parameters[] = {nullptr};
    same(cuLaunchKernel(host.kernel, 1, 1, 1, 1, 1, 1, 0, host.stream, null_parameters, nullptr), INVALID_VALUE, "a null parameter");
    works(cuCtxSynchronize(), "none of that breaks the context");
}

CASE(driver_refuses_clusters, passes()) {
    const Host host;
    LaunchAttribute attribute{};
    attribute.id = 4;
    attribute.value.size[0] = attribute.value.size[1] = attribute.value.size[2] = 1;
    LaunchConfig config{{1, 1, 1}, {64, 1, 1}, 0, host.stream, &attribute, 1};
    DevicePointer out = host.floats;
    void* parameters[] = {&out};
    works(cuLaunchKernelEx(&config, host.kernel, parameters, nullptr), "a cluster of one");
    attribute.value.size[0] = 2;
    same(cuLaunchKernelEx(&config, host.kernel, parameters, nullptr), NOT_SUPPORTED, "a cluster of two");
    attribute.id = 99;
    same(cuLaunchKernelEx(&config, host.kernel, parameters, nullptr), NOT_SUPPORTED, "an attribute that nobody knows");
}

CASE(driver_grants_what_the_capability_has, everywhere("512 bytes of static and 101376 of dynamic shared memory; a block has 101376")) {
    setenv("TOKENMILL_EMU_CAPABILITY", "8.6", 1);
    const Host host;
    same(cuFuncSetAttribute(host.kernel, MAX_DYNAMIC_SHARED, 101377), INVALID_VALUE, "too large an attribute");
    works(cuFuncSetAttribute(host.kernel, MAX_DYNAMIC_SHARED, 101376), "cuFuncSetAttribute");
    works(host.launch(host.floats, 64, 101376), "all that a block has");
    works(cuStreamSynchronize(host.stream), "all that a block has");
    Handle kernel;
    works(cuModuleGetFunction(&kernel, host.module, "copy"), "cuModuleGetFunction");
    works(cuFuncSetAttribute(kernel, MAX_DYNAMIC_SHARED, 101376), "cuFuncSetAttribute");
    DevicePointer memory = host.floats;
    void* parameters[] = {&memory, &memory};
    works(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, host.stream, parameters, nullptr), "the launch itself");
    same(cuStreamSynchronize(host.stream), LAUNCH_OUT_OF_RESOURCES, "static arrays beside an attribute that leaves them nothing");
}

// A kernel that starts before the one before it has ended.
static void overlap(const Host& host, const char* name) {
    Handle kernel;
    works(cuModuleGetFunction(&kernel, host.module, name), name);
    LaunchAttribute attribute{};
    attribute.id = 6;
    attribute.value.flag = 1;
    LaunchConfig config{{2, 1, 1}, {32, 1, 1}, 0, host.stream, &attribute, 1};
    DevicePointer out = host.floats;
    void* parameters[] = {&out};
    works(cuLaunchKernelEx(&config, kernel, parameters, nullptr), "the launch itself");
}

CASE(driver_overlaps_kernels_that_wait, passes()) {
    const Host host;
    overlap(host, "waits_for_former");
    works(cuStreamSynchronize(host.stream), "a kernel that waits");
}

CASE(driver_overlaps_no_kernel_that_does_not_wait, everywhere("never waited for that")) {
    const Host host;
    overlap(host, "waits_in_part");
    same(cuStreamSynchronize(host.stream), LAUNCH_FAILED, "a kernel of which half the threads wait");
}

// What comes of a one and of a kernel that adds one, with others in between.
static float sum_behind(const char* order, const char* name, int others) {
    setenv("TOKENMILL_EMU_ORDER", order, 1);
    const Host host;
    overlap(host, "waits_for_former");
    for (int at = 0; at < others; at++) {
        overlap(host, "waits_and_adds");
    }
    overlap(host, name);
    float sum = 0.0f;
    works(cuStreamSynchronize(host.stream), "the kernels");
    works(host.read(&sum), "the sum");
    works(cuDevicePrimaryCtxRelease_v2(0), "the end of the context");
    return sum;
}

CASE(driver_hides_what_a_kernel_must_wait_for, passes()) {
    for (int others : {0, 2}) {
        const float sum = 2.0f + static_cast<float>(others);
        for (const char* name : {"waits_and_adds", "reads_and_waits", "copies_and_waits"}) {
            expect(sum_behind("forward", name, others) == sum, "%s behind %d others", name, others);
        }
        expect(sum_behind("early", "waits_and_adds", others) == sum, "a kernel that waits, behind %d others", others);
        for (const char* name : {"reads_and_waits", "copies_and_waits"}) {
            const float early = sum_behind("early", name, others);
            expect(early != early, "%s early behind %d others: %f", name, others, static_cast<double>(early));
        }
    }
}

CASE(driver_refuses_early_writes, everywhere("device memory is written before the kernel before was waited for")) {
    setenv("TOKENMILL_EMU_ORDER", "early", 1);
    const Host host;
    overlap(host, "waits_for_former");
    overlap(host, "writes_and_waits");
    same(cuStreamSynchronize(host.stream), LAUNCH_FAILED, "a kernel that writes before it waits");
}

// Uploads are there for whoever comes behind them, at once.
CASE(driver_hides_no_uploads, passes()) {
    setenv("TOKENMILL_EMU_ORDER", "early", 1);
    const Host host;
    const float one = 1.0f;
    overlap(host, "waits_for_former");
    works(cuMemcpyHtoDAsync_v2(host.floats, &one, sizeof one, host.stream), "an upload");
    overlap(host, "reads_and_waits");
    float sum = 0.0f;
    works(cuStreamSynchronize(host.stream), "the kernels");
    works(host.read(&sum), "the sum");
    expect(sum == 2.0f, "%f", static_cast<double>(sum));
}

CASE(driver_names_the_kernels_that_ran, passes()) {
    const std::string path = "/tmp/emulator-tests-" + std::to_string(getpid());
    remove(path.c_str());
    setenv("TOKENMILL_EMU_LAUNCHED", path.c_str(), 1);
    const Host host;
    for (int launch = 0; launch < 2; launch++) {
        works(host.launch(host.floats), "a launch");
        overlap(host, "waits_for_former");
    }
    works(cuCtxSynchronize(), "all of them");
    std::ifstream names(path);
    std::string first, second, more;
    names >> first >> second;
    expect(first == "bounded" && second == "waits_for_former" && !(names >> more), "%s, %s, %s", first.c_str(), second.c_str(), more.c_str());
    remove(path.c_str());
}

CASE(driver_checks_pointers, everywhere("argument 0 (from 0) points at no device memory")) {
    const Host host;
    float on_the_host = 0.0f;
    works(host.launch(reinterpret_cast<DevicePointer>(&on_the_host)), "the launch itself");
    same(cuStreamSynchronize(host.stream), ILLEGAL_ADDRESS, "the kernel");
    same(cuCtxSynchronize(), ILLEGAL_ADDRESS, "every call after it");
}

CASE(driver_bounds_copies, passes()) {
    const Host host;
    char bytes[512] = {};
    const size_t size = 64 * sizeof(float);
    works(cuMemcpyHtoDAsync_v2(host.floats, bytes, size, host.stream), "a copy of all");
    same(cuMemcpyHtoDAsync_v2(host.floats, bytes, size + 1, host.stream), INVALID_VALUE, "one byte too many");
    same(cuMemcpyDtoHAsync_v2(bytes, host.floats + size, 1, host.stream), INVALID_VALUE, "a byte beyond");
    same(cuMemsetD8Async(host.floats + 1, 0, size, host.stream), INVALID_VALUE, "a fill that begins late");
    same(cuMemFree_v2(host.floats + 1), INVALID_VALUE, "freeing the middle");
}

CASE(driver_memory_is_poisoned, passes()) {
    const Host host;
    for (size_t bytes : {size_t{1000}, size_t{100} << 20}) {
        DevicePointer fresh;
        works(cuMemAlloc_v2(&fresh, bytes), "cuMemAlloc_v2");
        unsigned char ends[2] = {};
        works(cuMemcpyDtoH_v2(&ends[0], fresh, 1), "the first byte");
        works(cuMemcpyDtoH_v2(&ends[1], fresh + bytes - 1, 1), "the last byte");
        expect(ends[0] == 0xFF && ends[1] == 0xFF, "fresh memory holds %x and %x", ends[0], ends[1]);
    }
}

CASE(driver_runs_out_of_memory, passes()) {
    setenv("TOKENMILL_EMU_MEMORY", "1000000", 1);
    const Host host;
    size_t free_bytes = 0;
    size_t total = 0;
    works(cuMemGetInfo_v2(&free_bytes, &total), "cuMemGetInfo_v2");
    expect(total == 1000000 && free_bytes == total - 64 * sizeof(float), "%zu of %zu are free", free_bytes, total);
    DevicePointer all;
    DevicePointer more;
    works(cuMemAllocAsync(&all, free_bytes, host.stream), "what is left");
    same(cuMemAllocAsync(&more, 1, host.stream), OUT_OF_MEMORY, "one byte more");
    works(cuMemFreeAsync(all, host.stream), "cuMemFreeAsync");
    works(cuMemAllocAsync(&more, free_bytes, host.stream), "after a free that waits its turn");
}

CASE(driver_fails_a_launch, everywhere("this launch was told to fail")) {
    setenv("TOKENMILL_EMU_FAIL", "launch:2", 1);
    const Host host;
    works(host.launch(host.floats), "the first launch");
    works(cuStreamSynchronize(host.stream), "the first launch");
    works(host.launch(host.floats), "the second launch is only enqueued");
    same(cuStreamSynchronize(host.stream), LAUNCH_FAILED, "the second launch");
    float read = 0.0f;
    same(host.read(&read), LAUNCH_FAILED, "every call after it");
    works(cuDevicePrimaryCtxRelease_v2(0), "letting the context go");
    unsetenv("TOKENMILL_EMU_FAIL");
    const Host next;
    works(next.launch(next.floats), "a launch in the next context");
    works(next.read(&read), "a copy in the next context");
}

CASE(driver_fails_an_allocation, passes()) {
    setenv("TOKENMILL_EMU_FAIL", "alloc:2", 1);
    const Host host;
    DevicePointer memory;
    same(cuMemAlloc_v2(&memory, 4), OUT_OF_MEMORY, "the second allocation");
    works(cuMemAlloc_v2(&memory, 4), "the third allocation");
}

CASE(driver_streams_run_late, passes()) {
    const Host host;
    float* const pinned = pinned_float();
    works(host.launch(host.floats), "the launch");
    works(cuMemcpyDtoHAsync_v2(pinned, host.floats, sizeof(float), host.stream), "the copy");
    expect(*pinned != 1.0f, "the result is there before anyone waited");
    works(cuStreamSynchronize(host.stream), "waiting");
    expect(*pinned == 1.0f, "the result is %g", *pinned);
}

CASE(driver_streams_may_run_at_once, passes()) {
    setenv("TOKENMILL_EMU_STREAMS", "eager", 1);
    const Host host;
    float* const pinned = pinned_float();
    works(host.launch(host.floats), "the launch");
    works(cuMemcpyDtoHAsync_v2(pinned, host.floats, sizeof(float), host.stream), "the copy");
    expect(*pinned == 1.0f, "the result is %g", *pinned);
}

CASE(driver_reads_pinned_memory_late, passes()) {
    const Host host;
    float* const pinned = pinned_float();
    float pageable = 2.0f;
    *pinned = 2.0f;
    works(cuMemcpyHtoDAsync_v2(host.floats, pinned, sizeof(float), host.stream), "from pinned memory");
    works(cuMemcpyHtoDAsync_v2(host.floats + 4, &pageable, sizeof(float), host.stream), "from pageable memory");
    *pinned = 3.0f;
    pageable = 3.0f;
    float read[2];
    works(cuMemcpyDtoHAsync_v2(read, host.floats, sizeof read, host.stream), "back");
    expect(read[0] == 3.0f && read[1] == 2.0f, "%g and %g came", read[0], read[1]);
}

CASE(driver_events_order_streams, passes()) {
    const Host host;
    Handle other;
    Handle event;
    works(cuStreamCreate(&other, NON_BLOCKING), "cuStreamCreate");
    works(cuEventCreate(&event, 0), "cuEventCreate");
    float* const pinned = pinned_float();
    works(host.launch(host.floats), "the launch");
    works(cuEventRecord(event, host.stream), "cuEventRecord");
    works(cuStreamWaitEvent(other, event, 0), "cuStreamWaitEvent");
    works(cuMemcpyDtoHAsync_v2(pinned, host.floats, sizeof(float), other), "the copy on the other stream");
    works(cuStreamSynchronize(other), "waiting for the other stream");
    expect(*pinned == 1.0f, "the copy did not wait: %g", *pinned);
    works(cuEventRecord(event, host.stream), "cuEventRecord");
    works(host.launch(host.floats), "one more launch");
    works(cuEventRecord(event, host.stream), "cuEventRecord");
    int asked = 0;
    while (cuEventQuery(event) == NOT_READY && asked < 100) {
        asked++;
    }
    expect(asked > 0 && asked < 100, "asking %d times was needed", asked);
}

CASE(driver_replays_graphs, passes()) {
    const Host host;
    host.begin_capture();
    works(host.launch(host.floats), "a captured launch");
    Handle graph;
    Handle executable;
    works(cuStreamEndCapture(host.stream, &graph), "cuStreamEndCapture");
    float read = 0.0f;
    works(host.read(&read), "cuMemcpyDtoH_v2");
    expect(read != 1.0f, "a captured launch ran");
    works(cuGraphInstantiateWithFlags(&executable, graph, 0), "cuGraphInstantiateWithFlags");
    for (int replay = 0; replay < 3; replay++) {
        works(cuMemsetD8Async(host.floats, 0, sizeof(float), host.stream), "cuMemsetD8Async");
        works(cuGraphLaunch(executable, host.stream), "cuGraphLaunch");
        works(cuStreamSynchronize(host.stream), "cuStreamSynchronize");
        works(host.read(&read), "cuMemcpyDtoH_v2");
        expect(read == 1.0f, "replay %d gives %g", replay, read);
    }
    works(cuMemFree_v2(host.floats), "cuMemFree_v2");
    works(cuGraphLaunch(executable, host.stream), "a replay over freed memory is enqueued");
    same(cuStreamSynchronize(host.stream), ILLEGAL_ADDRESS, "a replay over freed memory");
}

CASE(driver_captures_strictly, passes()) {
    const Host host;
    same(cuStreamBeginCapture_v2(nullptr, THREAD_LOCAL_CAPTURE), STREAM_CAPTURE_UNSUPPORTED, "capture of the NULL stream");
    DevicePointer memory = 0;
    Handle event;
    works(cuEventCreate(&event, 0), "cuEventCreate");
    works(cuEventRecord(event, host.stream), "cuEventRecord");
    float pageable = 0.0f;
    const struct {
        const char* what;
        Result result;
        Result (*act)(const Host&, DevicePointer*, Handle, float*);
    } forbidden[] = {
        {"cuMemAlloc_v2", STREAM_CAPTURE_UNSUPPORTED, [](auto&, auto* memory, Handle, float*) { return cuMemAlloc_v2(memory, 4); }},
        {"cuMemAllocAsync", STREAM_CAPTURE_UNSUPPORTED,
         [](auto& host, auto* memory, Handle, float*) { return cuMemAllocAsync(memory, 4, host.stream); }},
        {"cuStreamSynchronize", STREAM_CAPTURE_UNSUPPORTED,
         [](auto& host, auto*, Handle, float*) { return cuStreamSynchronize(host.stream); }},
        {"cuCtxSynchronize", STREAM_CAPTURE_UNSUPPORTED, [](auto&, auto*, Handle, float*) { return cuCtxSynchronize(); }},
        {"a pageable copy", STREAM_CAPTURE_UNSUPPORTED,
         [](auto& host, auto*, Handle, float* pageable) { return cuMemcpyHtoDAsync_v2(host.floats, pageable, 4, host.stream); }},
        {"an event from outside", STREAM_CAPTURE_ISOLATION,
         [](auto& host, auto*, Handle event, float*) { return cuStreamWaitEvent(host.stream, event, 0); }},
    };
    for (const auto& [what, result, act] : forbidden) {
        Handle graph;
        host.begin_capture();
        same(act(host, &memory, event, &pageable), result, what);
        same(cuStreamEndCapture(host.stream, &graph), STREAM_CAPTURE_INVALIDATED, what);
    }
    works(host.launch(host.floats), "a launch after all that");
    works(cuStreamSynchronize(host.stream), "a launch after all that");
}
